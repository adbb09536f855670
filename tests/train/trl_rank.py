"""One of two processes that train together: ``python -m tests.train.trl_rank MODEL FOLDER``, ranks in the environment.

A question's eight completions are spread over both, and what each process saw is written for the test to compare.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from qoq_train.advantages import DrpoConfig
from tests.train.trl_trainers import DRPOTrainer, config, text_trainer

STEPS: list[dict[str, Any]] = []


class Watched(DRPOTrainer):
    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        STEPS.append(
            {
                "rewards": self._rewards_by_function[:, 0].tolist(),
                "domains": [row["domain"] for row in inputs],
                "own": output["advantages"].tolist(),
            }
        )
        return output


def main(model: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    args = config(folder / "out", num_generations=8)
    drpo = DrpoConfig(kl_damping=False, half_life_questions=1e12)
    trainer = text_trainer(model, args, Watched, drpo=drpo)
    trainer.train()
    state = {name: domain.vectors.tolist() for name, domain in trainer.drpo_state.domains.items()}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps({"steps": STEPS, "state": state}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.barrier()  # else one of them is gone while the other still hears it
    torch.distributed.destroy_process_group()
