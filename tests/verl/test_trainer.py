"""In verl's own environment: the trainer with a real transfer queue, its checkpoints, and the launch recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl has an environment of its own")
ray = pytest.importorskip("ray")
queue = pytest.importorskip("transfer_queue")

from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import OmegaConf, open_dict  # noqa: E402
from verl.trainer.ppo.v1 import get_trainer_cls  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from qoq_data.errors import UsageError  # noqa: E402
from qoq_train.advantages import DrpoConfig, DrpoState, drpo  # noqa: E402
from qoq_train.integrations import verl_trainer  # noqa: E402

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "train" / "verl"
QUESTIONS, COMPLETIONS = 6, 5


def settings(*overrides: str) -> Any:
    with initialize_config_dir(str(RECIPES), version_base=None):
        given = ["data.train_files=a.parquet", "data.val_files=b.parquet", *overrides]
        return compose("qwen2_5_vl_7b", overrides=given)


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    queue.init(
        OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1, "total_storage_size": 4096}}})
    )
    yield
    queue.close()
    ray.shutdown()


class Workers:
    """Where verl's GPU workers would be: writes and reads a file as they write and read shards."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        self.loaded: list[str] = []

    def save_checkpoint(self, path: str, *_: Any, **__: Any) -> None:
        folder = Path(path).parent
        assert (folder / verl_trainer.STATE_FILE).is_file()  # it stands before verl's last file says 'whole'
        assert not (folder.parent / "latest_checkpointed_iteration.txt").exists() or self.saved
        Path(path).mkdir(parents=True, exist_ok=True)
        self.saved.append(path)

    def load_checkpoint(self, *, local_path: str, **_: Any) -> None:
        self.loaded.append(local_path)


class Loader:
    def __init__(self) -> None:
        self.state = {"seen": 3}

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state


def trainer_of(folder: Path, *overrides: str) -> Any:
    config = settings(f"trainer.default_local_dir={folder}", *overrides)
    made = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    made.actor_rollout_wg, made.train_dataloader = Workers(), Loader()
    return made


def put(step: int, trainer: Any) -> tuple[Any, torch.Tensor, list[str], torch.Tensor, list[tuple[int, int]]]:
    """A batch in the queue as verl's agent loops leave it, shuffled, with two rows that only fill it up."""
    rng = np.random.default_rng(step)
    rewards = torch.from_numpy(rng.choice([0.0, 0.25, 0.5, 1.0], (QUESTIONS, COMPLETIONS)))
    domains = [("ct", "ecg")[int(i)] for i in rng.integers(2, size=QUESTIONS)]
    kl = torch.zeros(QUESTIONS, COMPLETIONS, dtype=torch.float64)
    places = [(int(p) // COMPLETIONS, int(p) % COMPLETIONS) for p in rng.permutation(QUESTIONS * COMPLETIONS)]
    keys, rows, tags = [], [], []
    for q, c in [*places, (-1, 0), (-1, 1)]:
        padding = q < 0
        length = 1 if padding else int(rng.integers(2, 9))
        old = torch.from_numpy(-rng.exponential(1.0, length)).float()
        reference = old + torch.from_numpy(rng.normal(0, 0.3, length)).float()
        if not padding:
            gap = (reference - old).double()
            kl[q, c] = (torch.exp(gap) - gap - 1).sum()
        scores = torch.zeros(length)
        scores[-1] = 0.0 if padding else float(rewards[q, c])
        mask = torch.zeros(length, dtype=torch.int64) if padding else torch.ones(length, dtype=torch.int64)
        uid = f"pad{step}" if padding else f"s{step}q{q}"
        domain = domains[0] if padding else domains[q]
        keys.append(f"{uid}_{c}_0")
        rows.append(
            {
                "uid": uid, "data_source": f"{domain}-source", "response_mask": mask, "rm_scores": scores,
                "extra_info": {"index": q, "id": uid, "domain": domain}, "rollout_log_probs": old,
                "old_log_probs": old, "ref_log_prob": reference,
            }
        )  # fmt: skip
        tags.append({"is_padding": padding, "seq_len": length})
    batch = queue.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(rows), tags=tags)
    return batch, rewards, domains, kl, places


def advantages_of(batch: Any) -> Any:
    data = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages", "response_mask"])
    return list(data["advantages"].unbind()), list(data["response_mask"].unbind())


@pytest.mark.parametrize(
    ("overrides", "config", "suffix"),
    [
        ((), DrpoConfig(), ""),
        (("algorithm.drpo.kl_damping=False", "+algorithm.drpo.max_clusters=1"),
         DrpoConfig(kl_damping=False, max_clusters=1), ""),
        (("algorithm.drpo.domain_key=source", "algorithm.drpo.statistics=batch"),
         DrpoConfig(statistics="batch"), "-source"),
    ],
)  # fmt: skip
def test_the_trainer_weighs_a_batch_of_the_queue_as_drpo_does(
    running: None, tmp_path: Path, overrides: tuple[str, ...], config: DrpoConfig, suffix: str
) -> None:
    trainer = trainer_of(tmp_path, *overrides)
    assert trainer.trainer_mode == "sync"
    state = DrpoState()
    for step in range(3):
        batch, rewards, domains, kl, places = put(step, trainer)
        metrics: dict[str, Any] = {}
        trainer._compute_advantage(batch, metrics)
        names = [domain + suffix for domain in domains]
        expected = drpo(rewards, names, state, config, kl=kl if config.kl_damping else None)
        state = expected.state
        found, masks = advantages_of(batch)
        for (q, c), values, mask in zip(places, found, masks, strict=False):
            weight = torch.full((len(mask),), float(expected.advantages[q, c]))
            torch.testing.assert_close(values.float(), weight, rtol=1e-4, atol=1e-5)
        assert all(float(values.abs().sum()) == 0 for values in found[len(places) :])
        assert metrics["drpo/questions"] == QUESTIONS
        assert metrics["drpo/uneven_questions"] == 0
        assert metrics[f"drpo/{names[0]}/questions"] == names.count(names[0])
        queue.kv_clear(keys=batch.keys, partition_id="train")


def test_a_checkpoint_carries_what_drpo_remembers(running: None, tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole")
    figures = []
    for step in range(4):
        batch = put(step, whole)[0]
        whole._compute_advantage(batch, {})
        figures.append([values.clone() for values in advantages_of(batch)[0]])
        queue.kv_clear(keys=batch.keys, partition_id="train")
        whole.global_steps = step + 1
        if step == 1:
            whole._save_checkpoint()
    folder = tmp_path / "whole" / "global_step_2"
    assert {path.name for path in folder.iterdir()} == {"actor", "data.pt", verl_trainer.STATE_FILE}
    for resumed in (
        trainer_of(tmp_path / "whole"),
        trainer_of(tmp_path / "other", "trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}"),
    ):
        assert verl_trainer.ESTIMATOR.state == DrpoState()
        resumed._load_checkpoint()
        assert resumed.global_steps == 2
        assert resumed.actor_rollout_wg.loaded == [str(folder / "actor")]
        for step in (2, 3):
            batch = put(step, resumed)[0]
            resumed._compute_advantage(batch, {})
            for found, expected in zip(advantages_of(batch)[0], figures[step], strict=True):
                assert torch.equal(found, expected)
            queue.kv_clear(keys=batch.keys, partition_id="train")
        verl_trainer.ESTIMATOR.state = DrpoState()
    fresh = trainer_of(tmp_path / "fresh")
    fresh._load_checkpoint()
    assert fresh.global_steps == 0
    (folder / verl_trainer.STATE_FILE).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UsageError, match=r"global_step_2/drpo_state.pt is damaged"):
        trainer_of(tmp_path / "whole")._load_checkpoint()
    (folder / verl_trainer.STATE_FILE).unlink()
    with pytest.raises(UsageError, match="holds no drpo_state.pt"):
        trainer_of(tmp_path / "whole")._load_checkpoint()


def test_rows_without_a_domain_and_loops_with_several_outputs_are_refused(running: None, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    batch = put(0, trainer)[0]
    several = type(batch)(keys=[key[:-1] + "1" for key in batch.keys], tags=batch.tags, partition_id="train")
    with pytest.raises(UsageError, match="several outputs"):
        trainer._compute_advantage(several, {})
    rows = list_of_dict_to_tensordict([{"extra_info": {"index": 1, "id": f"row-{i}"}} for i in range(len(batch.keys))])
    queue.kv_batch_put(keys=batch.keys, partition_id="train", fields=rows, tags=batch.tags)
    with pytest.raises(UsageError, match="row row-0 has no domain"):
        trainer._compute_advantage(batch, {})
    queue.kv_clear(keys=batch.keys, partition_id="train")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.adv_estimator=grpo", "adv_estimator=drpo too"),
        ("actor_rollout_ref.actor.use_kl_loss=False", "needs a reference model"),
        ("+algorithm.drpo.max_cluster=3", "max_clusters"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_starts(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        trainer_of(tmp_path, override)


def test_the_recipe_is_the_published_run_and_verl_accepts_it() -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = settings()
    with open_dict(config):
        config.actor_rollout_ref.model.path = str(RECIPES)  # no weights are read
    validate_config(config, need_reference_policy(config), need_critic(config))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, rollout.n, actor.ppo_mini_batch_size) == (512, 5, 128)
    assert (actor.optim.lr, actor.optim.weight_decay, actor.optim.clip_grad) == (1e-6, 1e-2, 1.0)
    assert (actor.kl_loss_coef, actor.kl_loss_type, actor.use_kl_loss) == (1e-4, "low_var_kl", True)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.3, 3.0)
    assert (rollout.temperature, rollout.top_p, rollout.val_kwargs.temperature) == (1.0, 0.99, 0.5)
    assert (rollout.prompt_length, rollout.response_length, rollout.max_model_len) == (4000, 4000, 8192)


def test_verl_loads_the_reward_function_that_the_recipe_names() -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn

    from qoq_data.record import AnswerType
    from qoq_train.answers import AnswerKey
    from qoq_train.integrations.verl_rows import ground_truth_of
    from qoq_train.rewards import RowFacts, reward_of, settings_of

    facts = RowFacts(AnswerKey(("a", "b"), ("b",), AnswerType.ONE), id="r", source="s")
    score = get_custom_reward_fn(settings())
    assert score is not None
    found = score(
        data_source="s", solution_str="\\boxed{b}", ground_truth=ground_truth_of(facts), extra_info={"id": "r"}
    )
    assert found["score"] == reward_of("\\boxed{b}", facts, settings_of("released")).total
    assert found["acc"] == 1.0


def test_the_environment_variable_of_the_recipe_registers_both_in_a_new_process() -> None:
    variables = settings().ray_kwargs.ray_init.runtime_env.env_vars
    code = (
        "import verl\n"
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "print(get_adv_estimator_fn('drpo').__name__, get_trainer_cls('drpo').__name__)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout.split() == ["compute_drpo_advantage", "DrpoTrainer"], ran.stderr[-2000:]
