"""Completions a second of the whole loop, our trainer beside TRL's GRPOTrainer, both with vLLM in the process.

A step is: generate, judge, score, two updates, weights to the engine. Both take the same random tiny model, synthetic
corpus, 16 questions × 8 completions of at most 24 tokens, rewards, clip range, importance cap and optimiser. Each runs
in a process of its own; they take steps in turn, so that what else the machine does falls on both alike, and the first
steps are not counted. TRL's rows are read before its clock starts, ours within it. The limit is our generation alone.
Each has one thread, unless ``OMP_NUM_THREADS`` and ``VLLM_CPU_OMP_THREADS_BIND`` say otherwise: at this size, on a
machine that others use too, a second one only makes the first wait (measured: ten times longer for ours, six for TRL).

What TRL 1.16 needs to run right with vLLM 0.32 without a GPU, all of it done here:

1. the environment variables that our engine sets (engine in the process, nothing compiled), and two arguments of the
   engine that TRL has no setting for: ``enforce_eager``, or it wants to compile, and ``dtype="float32"``, or it holds
   a float32 model in 16 bits, and the gap below is 0.03;
2. ``vllm._custom_ops._supports_onednn = False`` before the engine starts, since TRL writes weights into the engine's
   model, which has packed them otherwise: ``load_weights`` then fails half-way;
3. one picture token a picture in the prompt's ids: TRL passes those that its processor has repeated already, and the
   engine repeats the first of them once more, without an error;
4. the encoder's cache emptied with the prefix cache after each update: else a picture that comes again keeps the old
   vision tower's features;
5. a logit bias that bans the tokens which stand for pictures: one that is drawn has no picture, and scoring it fails.

The largest gap between the engine's and the trainer's log-probabilities is printed for both: it is what tells whether
that was enough. TRL's holds the probability of the banned tokens, which it takes into account where it scores and
cannot where it draws; ours leaves them out of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from benchmarks.harness import Result

if TYPE_CHECKING:
    from qoq_train.rewards import RowFacts

UNIT = "completions/s"
MARK = "step "
QUESTIONS, COMPLETIONS, MAX_TOKENS, UPDATES = 16, 8, 24, 2
WARM_UP = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
SOURCES = ("busi", "jichi", "brain-tumor", "pad-ufes-20")


def run(quick: bool) -> Result:
    """Median over 10 steps of each (3 when quick), in turn."""
    missing = [name for name in ("vllm", "trl") if find_spec(name) is None]
    if missing:
        raise SystemExit(f"train_throughput needs {' and '.join(missing)}: pip install 'qoq-med[train,vllm,trl]'")
    print(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        steps = _in_turn(folder, WARM_UP + (3 if quick else 10))
    seconds = {side: median(step["seconds"] for step in taken[WARM_UP:]) for side, taken in steps.items()}
    rates = {side: QUESTIONS * COMPLETIONS / value for side, value in seconds.items()}
    generation = median(step["generate"] for step in steps["ours"][WARM_UP:])
    limit = QUESTIONS * COMPLETIONS / generation
    rows = [
        (side, f"{rates[side]:.0f}", f"{rates[side] / rates['trl']:.2f}", f"{seconds[side]:.2f}",
         f"{median(s['processor'] for s in taken[WARM_UP:]):.2f}", f"{_mean(taken, 'tokens'):.1f}",
         f"{max(step['gap'] for step in taken):.1e}")
        for side, taken in steps.items()
    ]  # fmt: skip
    rows.append(
        ("our generation alone", f"{limit:.0f}", f"{limit / rates['trl']:.2f}", f"{generation:.2f}", "", "", "")
    )
    columns = ("way", UNIT, "times TRL", "s a step", "of processors", "tokens", "largest gap")
    ratio = rates["ours"] / rates["trl"]
    return Result("train_throughput", rates["ours"], rates["trl"], limit, ratio, UNIT, columns, tuple(rows))


def _mean(steps: list[dict[str, float]], key: str) -> float:
    return sum(step[key] for step in steps) / len(steps)


def _prepare(folder: Path) -> None:
    """A corpus of synthetic sources and a tiny model that knows its words."""
    sources = "".join(f"  - name: {name}\n" for name in SOURCES)
    (folder / "corpus.yaml").write_text(f"name: throughput\nsources:\n{sources}", encoding="utf-8")
    settings = [part for key in ("data.corpus=corpus", "model.path=model") for part in ("--set", key)]
    for command in (
        ["qoq_data.cli", "build", "corpus.yaml", "--synthetic", "--out", "corpus"],
        ["qoq_train.cli", "tiny-model", "tiny", *settings, "--out", "model"],
    ):
        module, *words = command
        line = [sys.executable, "-c", f"from {module} import main; main()", *words]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _in_turn(folder: Path, steps: int) -> dict[str, list[dict[str, float]]]:
    """Both sides' figures, step by step: each is told to go on when the other is done."""
    sides = ("ours", "trl")
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for side in sides:
            with (folder / f"{side}.log").open("w") as log:
                running[side] = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.train_throughput", side, str(folder), str(steps)],
                    env=ONE_THREAD | os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
            _await(running[side], folder, side)  # started
        for _ in range(steps):
            for side in sides:
                told = running[side].stdin
                assert told is not None
                told.write("go\n")
                told.flush()
                found[side].append(_await(running[side], folder, side))
        for side in sides:
            running[side].communicate(timeout=120)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return found


def _await(process: subprocess.Popen[str], folder: Path, side: str) -> dict[str, float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            figures: dict[str, float] = json.loads(line.removeprefix(MARK))
            return figures
    raise SystemExit(f"{side} ended:\n{(folder / f'{side}.log').read_text()[-4000:]}")


class Turns:
    """The other end: waits for its turn, and tells what a step took. What libraries print goes to stderr instead."""

    def __init__(self) -> None:
        self._out: IO[str] = sys.stdout
        sys.stdout = sys.stderr

    def tell(self, **figures: float) -> None:
        """One line for the benchmark."""
        self._out.write(MARK + json.dumps(figures) + "\n")
        self._out.flush()

    def wait(self) -> None:
        """Until it is this side's turn."""
        if not sys.stdin.readline():
            raise SystemExit("the benchmark went away")


def varied(text: str, row: RowFacts) -> float:
    """A reward that differs between completions of random weights, so that there is something to update."""
    return (sum(map(ord, text)) + len(row.question)) % 8 / 8


def _recipe(folder: Path) -> Any:
    from qoq_train.recipe_files import read_train_recipe

    own = "benchmarks.train_throughput:varied"
    settings = {
        "rewards.custom": [own], "rewards.weights": {"answer": 0.5, own: 0.5},
        "data.corpus": str(folder / "corpus"), "model.path": str(folder / "model"), "run.sampled_completions": 0,
        "rollout.questions": QUESTIONS, "rollout.completions": COMPLETIONS, "rollout.max_tokens": MAX_TOKENS,
        "optimiser.questions_per_update": QUESTIONS // UPDATES,
    }  # fmt: skip
    return read_train_recipe("tiny", settings)


def _ours(folder: Path, steps: int, turns: Turns) -> None:
    from qoq_data.record import Split
    from qoq_train.recipe import train_recipe_text
    from qoq_train.training.assembly import assemble, start_engine
    from qoq_train.training.run_folder import RunFolder
    from qoq_train.training.trainer import Trainer

    recipe = _recipe(folder)
    assembly = assemble(recipe)
    run_folder = RunFolder(folder / "ours", train_recipe_text(recipe), assembly.corpus.manifest_sha256)
    trainer = Trainer(assembly, start_engine(assembly), run_folder, lambda _: None)
    batches: Iterator[Any] = assembly.corpus.rows(Split.TRAIN).batches(QUESTIONS, seed=recipe.seed)
    turns.tell()
    for step in range(steps):
        turns.wait()
        start, used = time.perf_counter(), time.process_time()
        figures = trainer.step(step, next(batches))
        turns.tell(
            seconds=time.perf_counter() - start,
            processor=time.process_time() - used,
            generate=figures["seconds/generate"],
            tokens=figures["tokens"],
            gap=figures["rollout_gap/max"],
        )


def _trl(folder: Path, steps: int, turns: Turns) -> None:
    from qoq_train.rollout.vllm_engine import VllmChoice, set_environment

    set_environment(has_gpu=False, is_folder=True, choice=VllmChoice())
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer
    from trl.generation import vllm_generation
    from vllm import _custom_ops

    from qoq_data.record import Split
    from qoq_train.integrations.trl_corpus import corpus_dataset, qoq_rewards
    from qoq_train.training.assembly import assemble

    if not torch.cuda.is_available():
        _custom_ops._supports_onednn = False  # noqa: SLF001
        vllm_generation.LLM = partial(vllm_generation.LLM, enforce_eager=True, dtype="float32")
    recipe = _recipe(folder)
    assembly = assemble(recipe)
    policy = assembly.policy
    policy.processor.tokenizer.padding_side = "left"
    drawn = corpus_dataset(assembly.corpus.rows(Split.TRAIN), assembly.writer, seed=recipe.seed)
    rows = [drawn[i % len(drawn)] for i in range(steps * QUESTIONS)]
    dataset = Dataset.from_dict({"place": list(range(len(rows)))}).with_transform(
        lambda batch: {name: [rows[place][name] for place in batch["place"]] for name in rows[0]}
    )
    trainer = GRPOTrainer(
        policy.model,
        qoq_rewards(assembly.rewards, assembly.user_rewards),
        _trl_settings(recipe, folder, policy.banned_ids, steps),
        dataset,
        processing_class=policy.processor,
    )
    _mend(trainer.vllm_generation, policy.banned_ids[0])
    trainer.add_callback(_in_turns(trainer, turns))
    turns.tell()
    trainer.train()


def _trl_settings(recipe: Any, folder: Path, banned_ids: tuple[int, ...], steps: int) -> Any:
    """The same run in TRL's words; the batch of one forward pass is the whole update, which is its fastest."""
    import torch
    from trl import GRPOConfig

    optimiser = recipe.optimiser
    return GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=steps * UPDATES, use_cpu=not torch.cuda.is_available(), bf16=False,
        per_device_train_batch_size=QUESTIONS * COMPLETIONS // UPDATES, steps_per_generation=UPDATES,
        gradient_accumulation_steps=1, num_generations=COMPLETIONS, max_completion_length=MAX_TOKENS,
        shuffle_dataset=False, temperature=1.0, beta=0.0, loss_type="dapo", epsilon=recipe.method.clip_low,
        epsilon_high=recipe.method.clip_high, vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=recipe.method.importance_cap, learning_rate=optimiser.learning_rate,
        lr_scheduler_type="constant", adam_beta1=optimiser.betas[0], adam_beta2=optimiser.betas[1],
        weight_decay=optimiser.weight_decay, max_grad_norm=optimiser.max_grad_norm, gradient_checkpointing=False,
        use_vllm=True, vllm_mode="colocate", vllm_max_model_length=recipe.data.max_prompt_tokens + MAX_TOKENS,
        generation_kwargs={"logit_bias": dict.fromkeys(banned_ids, -100.0)}, report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip


def _mend(generation: Any, picture_id: int) -> None:
    """What the module's text lists as 3 and 4."""
    generate, sync_weights = generation.generate, generation.sync_weights

    def generate_once(prompts: list[list[int]], **rest: Any) -> Any:
        single = [
            [token for i, token in enumerate(ids) if token != picture_id or not i or ids[i - 1] != picture_id]
            for ids in prompts
        ]
        return generate(prompts=single, **rest)

    def sync_and_forget() -> None:
        sync_weights()
        generation.llm.llm_engine.reset_encoder_cache()

    generation.generate, generation.sync_weights = generate_once, sync_and_forget


def _in_turns(trainer: Any, turns: Turns) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        start = used = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step % UPDATES == 0:
                turns.wait()
                self.start, self.used = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step % UPDATES == 0:
                seconds, told = time.perf_counter() - self.start, trainer._metrics["train"]  # noqa: SLF001
                turns.tell(
                    seconds=seconds,
                    processor=time.process_time() - self.used,
                    tokens=told["completions/mean_length"][-1],
                    gap=told["sampling/sampling_logp_difference/max"][-1],
                )

    return Callback()


if __name__ == "__main__":
    {"ours": _ours, "trl": _trl}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), Turns())
