"""What will fail of a run: the arithmetic of memory by hand, the counts of models, and each check on its own."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qoq_train.data.corpus import Corpus
from qoq_train.doctor import diagnosis as doctor
from qoq_train.doctor import memory as doctor_memory
from qoq_train.doctor import phases as memory
from qoq_train.doctor.diagnosis import diagnose
from qoq_train.doctor.findings import Finding
from qoq_train.doctor.inputs import Inputs, check_corpus, check_model, check_prompts
from qoq_train.doctor.memory import Machine, assumed_machine, check_device, check_memory, run_size
from qoq_train.doctor.model_size import model_size
from qoq_train.doctor.phases import GIB, ModelSize, RunSize, TowerSize
from qoq_train.doctor.text import diagnosis_json, memory_table
from qoq_train.models import scoring
from qoq_train.models.loading import LoraChoice, ModelChoice, load_policy
from qoq_train.models.tiny import write_tiny_model
from qoq_train.prompts import fixed_pieces
from qoq_train.recipe import LoraRecipe, TrainRecipe, train_recipe_text
from qoq_train.recipe_files import read_train_recipe
from qoq_train.rollout import CHUNK_BYTES
from qoq_train.training.assembly import CONVENTIONS
from tests.train.conftest import Changed, Row
from tests.train.policies import write_text_model
from tests.train.test_trainer import recipe_of

SMALL = ModelSize(
    parameters=1000, trained=1000, adapters=0, largest_weight=200, largest_block=100, root=300, vocabulary=50,
    text=TowerSize(blocks=4, hidden=8, intermediate=32, query=8, key_value=4),
)  # fmt: skip


def qwen_7b() -> Any:
    """Qwen2.5-VL-7B by its published sizes."""
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064,
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2,
        },
        tie_word_embeddings=False,
    )  # fmt: skip


def by_hand_7b() -> tuple[int, int, int, int]:
    """Parameters of a text block, of the vision tower, of what is outside blocks, and of all, written out."""
    hidden, inner, key_value, vocabulary = 3584, 18944, 512, 152064
    attention = hidden * hidden + hidden + 2 * (hidden * key_value + key_value) + hidden * hidden
    block = attention + 3 * hidden * inner + 2 * hidden
    seen, wide = 1280, 3420
    vision_block = seen * 3 * seen + 3 * seen + seen * seen + seen + 3 * seen * wide + 2 * wide + seen + 2 * seen
    merger = seen + (4 * seen * 4 * seen + 4 * seen) + (4 * seen * hidden + hidden)
    patches = 3 * 2 * 14 * 14 * seen
    root = 2 * vocabulary * hidden + hidden + patches + merger
    return block, 32 * vision_block + patches + merger, root, 28 * block + 32 * vision_block + root


@pytest.fixture(scope="module")
def size_7b() -> ModelSize:
    return model_size(qwen_7b())


def run_of(model: ModelSize, **changes: Any) -> RunSize:
    usual = RunSize(
        model=model, devices=8, device_bytes=80 * GIB, has_gpu=True, value_bytes=4, compute_bytes=2, engine_bytes=2,
        has_reference_copy=True, has_engine=True, engine_share=0.5, sequence_tokens=8000, micro_tokens=16_384,
        picture_tokens=668, completions=5, checkpointing=True,
    )  # fmt: skip
    return dataclasses.replace(usual, **changes)


def test_the_7b_model_has_the_parameters_that_are_published(size_7b: ModelSize) -> None:
    block, vision, root, every = by_hand_7b()
    assert every == 8_292_166_656
    assert (size_7b.parameters, size_7b.trained, size_7b.adapters) == (every, every, 0)
    assert size_7b.largest_block == block == 233_057_792
    assert size_7b.largest_weight == 152_064 * 3584
    assert size_7b.root == root == 1_136_078_080
    assert size_7b.text == TowerSize(28, 3584, 18944, 3584, 512)
    assert (size_7b.patches_per_token, size_7b.vision_is_trained) == (4, True)
    assert model_size(qwen_7b(), freeze_vision=True).trained == every - vision


def test_adapters_of_the_7b_model_by_hand() -> None:
    size = model_size(qwen_7b(), LoraRecipe(rank=16))
    a_block = 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert size.adapters == size.trained == 28 * a_block == 40_370_176
    assert not size.vision_is_trained
    few = model_size(qwen_7b(), LoraRecipe(rank=16, targets=("q_proj",)))
    assert few.adapters == 28 * 16 * (3584 + 3584)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "text"])
def test_counts_are_those_of_the_model_that_is_loaded(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = tmp_path / "model"
    if family == "text":
        write_text_model(folder)
    else:
        write_tiny_model(folder, answer_pieces=("yes",), family=family)  # type: ignore[arg-type]
    size = model_size(AutoConfig.from_pretrained(folder), LoraRecipe(rank=4))
    policy = load_policy(ModelChoice(str(folder), "float32", LoraChoice(4)))
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in policy.model.parameters()]
    assert size.adapters == size.trained == sum(count for count, trained in counts if trained)
    assert size.parameters == sum(count for count, trained in counts if not trained)


def test_adapters_that_fit_no_layer_are_told(tmp_path: Path) -> None:
    from qoq_data.errors import UsageError

    with pytest.raises(UsageError, match="wq"):
        model_size(qwen_7b(), LoraRecipe(targets=("wq",)))


def test_each_part_by_hand() -> None:
    assert memory.shared(1000, 4, 3) == 334 * 4
    assert memory.adamw_bytes(1000, 4, 8) == 2 * 125 * 4
    assert memory.gathered_bytes(SMALL, 2, 1) == 0
    assert memory.gathered_bytes(SMALL, 2, 2) == (2 * 100 + 300) * 2
    assert memory.reduced_bytes(SMALL, 2, 2) == 300 * (2 + 4)
    assert memory.reduced_bytes(SMALL, 4, 2) == 300 * 4
    assert memory.reduced_bytes(dataclasses.replace(SMALL, adapters=5), 2, 2) == 0
    assert memory.handed_over_bytes(SMALL, 4, 2) == (32 << 20) + 200 * 6
    assert memory.block_bytes(SMALL.text, 2) == 2 * (4 * 32 + 5 * 8) + 2 * 8 * 8
    assert memory.cache_bytes(SMALL, 10, 2) == 2 * 4 * 4 * 2 * 10
    one, gradients = 2 * (4 * 32 + 5 * 8) + 2 * 8 * 8, 2 * (3 * 32 + 2 * 8)
    assert memory.activation_bytes(SMALL.text, 7, 2, checkpointing=False) == 7 * (4 * one + gradients)
    assert memory.activation_bytes(SMALL.text, 7, 2, checkpointing=True) == 7 * (4 * 8 * 2 + one + gradients)
    assert memory.checkpoint_bytes(SMALL, 4, 2) == 3 * 3 * 1000 * 4 + 2 * 1000 * 4
    assert memory.checkpoint_bytes(dataclasses.replace(SMALL, adapters=10, trained=10), 2, 1) == 2 * 3 * 40 + 4000


def test_pictures_are_shared_by_the_completions_of_a_question() -> None:
    model = dataclasses.replace(SMALL, vision=SMALL.text, patches_per_token=4)
    assert memory.picture_patches(SMALL, 1000, 100, 5) == 0
    assert memory.picture_patches(model, 1000, 100, 5) == 200 * 4
    assert memory.picture_patches(model, 100, 100, 5) == 100 * 4  # one whole picture at least


def test_the_7b_run_on_eight_gpus_by_hand(size_7b: ModelSize) -> None:
    eighth = 8_292_166_656 // 8 * 4
    found = {phase.name: dict(phase.parts) for phase in memory.phases(run_of(size_7b))}
    assert found["generate"] == {
        "weights": eighth, "AdamW's states": 2 * eighth, "reference model": eighth, "runtime": 3 * GIB // 2,
        "engine": 40 * GIB,
    }  # fmt: skip
    assert found["update"]["gradients"] == eighth
    assert found["update"]["activations"] == 16_384 * (
        28 * 3584 * 2 + (2 * (4 * 18944 + 5 * 3584) + 16 * 3584) + 2 * (3 * 18944 + 2 * 3584)
    )
    assert found["weights"]["engine's weights"] == 8_292_166_656 * 2 + GIB
    assert all(phase.bytes < memory.usable_bytes(run_of(size_7b)) for phase in memory.phases(run_of(size_7b)))


def test_constants_are_those_of_what_they_describe() -> None:
    assert memory.LOGIT_VALUES == scoring._CHUNK_VALUES
    assert memory.CHUNK_BYTES == CHUNK_BYTES


@pytest.mark.parametrize(("query_heads", "key_value_heads"), [(4, 4), (4, 1)])
def test_what_a_block_keeps_is_what_torch_keeps(query_heads: int, key_value_heads: int) -> None:
    """Bytes that autograd holds of one more block, by its own account, beside the formula."""
    from transformers import Qwen2Config, Qwen2Model

    tokens = 512

    def kept(blocks: int, dtype: torch.dtype) -> int:
        config = Qwen2Config(
            hidden_size=128, intermediate_size=640, num_hidden_layers=blocks, num_attention_heads=query_heads,
            num_key_value_heads=key_value_heads, vocab_size=64,
        )  # fmt: skip
        model = Qwen2Model(config).to(dtype)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        held: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=False).last_hidden_state
        total = sum(storage.nbytes() for storage in held.values())
        del out
        return total

    tower = TowerSize(1, 128, 640, 128, 128 * key_value_heads // query_heads)
    for dtype, value in ((torch.float32, 4), (torch.bfloat16, 2)):
        measured = (kept(3, dtype) - kept(1, dtype)) / 2 / tokens
        stated = memory.block_bytes(tower, value)
        assert measured <= stated * 1.02
        assert stated <= measured * 1.25


def test_the_largest_micro_batch_that_fits_does_and_one_more_does_not(size_7b: ModelSize) -> None:
    run = run_of(size_7b, device_bytes=40 * GIB)
    most = memory.most_micro_tokens(run)
    assert 0 < most < 16_384
    for tokens, fits in ((most, True), (most + 1, False)):
        update = next(p for p in memory.phases(dataclasses.replace(run, micro_tokens=tokens)) if p.name == "update")
        assert (update.bytes <= memory.usable_bytes(run)) is fits


def test_the_engine_share_that_is_named_works_at_both_ends(size_7b: ModelSize) -> None:
    run = run_of(size_7b)
    least, most = memory.engine_share_range(run)
    assert 0 < least < 0.5 < most < 1
    assert memory.engine_least_bytes(run) == pytest.approx(least * run.device_bytes)
    full = dataclasses.replace(run, engine_share=most)
    assert memory.phases(full)[0].bytes == pytest.approx(memory.usable_bytes(run), abs=2)


RECIPES = {"qoq-med-7b": (8, 79.2), "qoq-med-7b-lora": (1, 79.2)}


@functools.cache
def size_of_7b(lora: LoraRecipe | None) -> ModelSize:
    return model_size(qwen_7b(), lora)


class KnownInputs:
    """A recipe with a known model's counts."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        self.size = size_of_7b(recipe.model.lora)
        self.picture_tokens = 524_288 // 28**2


def verdicts(recipe: TrainRecipe, devices: int, gib: float) -> list[Finding]:
    inputs: Any = KnownInputs(recipe)
    return [*check_memory(run_size(inputs, assumed_machine(devices, gib)), recipe)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_the_gpus_that_it_names(name: str) -> None:
    found = verdicts(read_train_recipe(name), *RECIPES[name])
    assert [one.verdict for one in found] == ["fine"] * 3


@pytest.mark.parametrize(
    ("name", "settings", "devices", "gib", "key"),
    [
        ("qoq-med-7b", {}, 1, 79.2, "model.lora"),
        ("qoq-med-7b", {"rollout.gpu_memory": 0.9}, 8, 79.2, "rollout.gpu_memory"),
        ("qoq-med-7b", {"rollout.gpu_memory": 0.1}, 8, 79.2, "rollout.gpu_memory"),
        ("qoq-med-7b", {"optimiser.micro_tokens": 200_000}, 8, 79.2, "optimiser.micro_tokens"),
        ("qoq-med-7b", {"model.gradient_checkpointing": False}, 8, 79.2, "model.gradient_checkpointing"),
        ("qoq-med-7b", {"supervised.steps": 10, "supervised.batch": 128}, 8, 79.2, "supervised.batch"),
        ("qoq-med-7b-lora", {}, 1, 16.0, "model.path"),
    ],
)
def test_what_does_not_fit_names_the_key_that_changes_it(
    name: str, settings: dict[str, Any], devices: int, gib: float, key: str
) -> None:
    found = [one for one in verdicts(read_train_recipe(name, settings), devices, gib) if one.verdict == "fails"]
    assert key in {one.key for one in found}


def test_what_is_advised_works() -> None:
    recipe = read_train_recipe("qoq-med-7b", {"optimiser.micro_tokens": 200_000})
    told = next(one for one in verdicts(recipe, 8, 79.2) if one.verdict == "fails")
    most = int(told.what.rsplit("set it to ", 1)[1].split()[0])
    better = read_train_recipe("qoq-med-7b", {"optimiser.micro_tokens": most})
    assert {one.verdict for one in verdicts(better, 8, 79.2)} == {"fine"}


@pytest.fixture(scope="module")
def tiny(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("doctor") / "model"
    data = recipe_of(corpus_folder, folder).data
    write_tiny_model(folder, answer_pieces=fixed_pieces(Corpus(data), "short", CONVENTIONS["qwen2_5_vl"]), seed=1)
    return corpus_folder, folder


def found_of(recipe: TrainRecipe, **options: Any) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in diagnose(recipe, **options).findings:
        found.setdefault(one.check, []).append(one)
    return found


def looked(check: Callable[[Inputs], Iterator[Finding]], recipe: TrainRecipe) -> list[Finding]:
    """One check alone."""
    return [*check(Inputs(recipe))]


def failing(found: dict[str, list[Finding]]) -> set[str]:
    return {check for check, every in found.items() if any(one.verdict == "fails" for one in every)}


def test_a_run_that_can_start_has_nothing_that_fails(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = recipe_of(*tiny)
    diagnosis = diagnose(recipe, out=tmp_path / "run")
    assert diagnosis.is_healthy, [one for one in diagnosis.findings if one.verdict == "fails"]
    checks = {one.check for one in diagnosis.findings}
    assert {"device", "versions", "model", "corpus", "prompts", "rewards", "memory", "disk", "run folder"} <= checks
    told = " ".join(one.what for one in diagnosis.findings)
    assert "train: " in told
    assert "dermatology" in told
    assert "generated by a program" in told
    assert "a public push" in told
    assert not (tmp_path / "run").exists()


def test_one_broken_part_does_not_hide_the_others(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    no_model = found_of(recipe_of(tiny[0], tmp_path / "none"))
    order = [one.verdict for every in no_model.values() for one in every]
    assert order[0] == "fails"
    assert "model" in failing(no_model)
    assert not failing(no_model) & {"corpus", "rewards", "versions"}
    assert any(one.verdict == "warns" and "same reason" in one.what for one in no_model["memory"])
    no_corpus = found_of(recipe_of(tmp_path / "none", tiny[1]))
    assert "corpus" in failing(no_corpus)
    assert not failing(no_corpus) & {"model", "memory", "disk", "rewards"}
    bad_reward = found_of(recipe_of(*tiny, rewards={"custom": ["no.such:reward"]}))
    assert failing(bad_reward) == {"rewards"}


def test_an_unforeseen_error_of_a_check_is_a_finding(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(doctor, "check_rewards", broken)
    found = found_of(recipe_of(*tiny))
    assert [one.what for one in found["rewards"]] == ["by zero"]
    assert failing(found) == {"rewards"}


def test_a_model_without_weights_or_tokenizer_fails(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny[1], tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    (copy / "tokenizer.json").unlink()
    told = [one.what for one in looked(check_model, recipe_of(tiny[0], copy)) if one.verdict == "fails"]
    assert told == ["copy has no weights (*.safetensors)", "copy has no tokenizer"]


def test_a_file_that_the_index_names_and_is_not_there_fails(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny[1], tmp_path / "copy"))
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    told = [one.what for one in looked(check_model, recipe_of(tiny[0], copy)) if one.verdict == "fails"]
    assert told == ["1 of its 2 files are not there: model-2.safetensors first"]


def test_the_licence_of_the_model_is_read_from_its_card(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny[1], tmp_path / "copy"))
    assert any("no licence" in one.what for one in looked(check_model, recipe_of(tiny[0], copy)))
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert any("apache-2.0 (README.md of copy)" in one.what for one in looked(check_model, recipe_of(tiny[0], copy)))


def test_prompts_too_long_are_counted_and_all_too_long_fails(tiny: tuple[Path, Path]) -> None:
    some = looked(check_prompts, recipe_of(*tiny, data__max_prompt_tokens=45))
    assert any(one.verdict == "warns" and one.key == "data.max_prompt_tokens" for one in some)
    every = looked(check_prompts, recipe_of(*tiny, data__max_prompt_tokens=16))
    assert any(one.verdict == "fails" and one.key == "data.max_prompt_tokens" for one in every)


def test_an_unreadable_medium_is_named_by_its_row(tiny: tuple[Path, Path], changed: Changed) -> None:
    def damage(row: Row) -> None:
        if row["source"] == "busi" and row["split"] == "train":
            row["images"] = [{"bytes": b"no picture", "path": None} for _ in row["images"]]

    told = [one for one in looked(check_prompts, recipe_of(changed(damage), tiny[1])) if one.verdict == "fails"]
    assert told
    assert "busi/" in told[0].what


def test_a_split_without_rows_fails(tiny: tuple[Path, Path]) -> None:
    inputs = Inputs(recipe_of(*tiny))
    manifest = inputs.corpus.manifest
    kept = tuple(shard for shard in manifest.shards if shard.split != "validation")
    inputs.corpus.manifest = dataclasses.replace(manifest, shards=kept)
    found = [one.what for one in check_corpus(inputs) if one.verdict == "fails"]
    assert found == ["validation has no row that passes data.sources and data.tasks"]


def test_versions_missing_and_other_than_tested(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.3.1", "transformers": "5.19.0"}
    monkeypatch.setattr(doctor, "_version", installed.get)
    plain = [*doctor.check_versions(recipe_of(*tiny))]
    assert [(one.verdict, one.what.split()[0]) for one in plain] == [
        ("fails", "torch"), ("warns", "torch"), ("fine", "transformers"),
    ]  # fmt: skip
    needy = recipe_of(*tiny, model__lora={"rank": 2}, rollout__engine="vllm")
    fails = {one.key for one in doctor.check_versions(needy) if one.verdict == "fails"}
    assert fails == {"", "model.lora", "rollout.engine"}


def test_no_space_on_the_disk_fails(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    told = [*doctor.check_disk(Inputs(recipe_of(*tiny)), tmp_path / "not" / "yet")]
    assert [(one.verdict, one.key) for one in told] == [("fails", "run.keep_checkpoints")]


def test_the_run_folder_of_another_recipe_fails_and_ones_own_goes_on(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, out = recipe_of(*tiny), tmp_path / "run"

    def looked_at(of: TrainRecipe, folder: Path = out) -> list[Finding]:
        return [*doctor.check_run_folder(of, Inputs(of), folder)]

    (out / "checkpoints").mkdir(parents=True)
    (out / "recipe.yaml").write_text(train_recipe_text(recipe))
    assert found_of(recipe, out=out)["run folder"] == [Finding("run folder", "fine", "begins again: no checkpoint yet")]
    (out / "checkpoints" / "step-000020.pt").touch()
    assert "step-000020" in looked_at(recipe)[0].what
    assert [one.verdict for one in looked_at(recipe_of(*tiny, seed=7))] == ["fails"]
    (out / "corpus.json").write_text('{"manifest_sha256": "0"}')
    assert [one.verdict for one in looked_at(recipe)] == ["fails"]
    (tmp_path / "file").touch()
    assert [one.verdict for one in looked_at(recipe, tmp_path / "file")] == ["fails"]


@pytest.mark.parametrize(
    ("dtype", "lora", "rate", "verdicts"),
    [
        ("bfloat16", None, 1e-6, ["warns"]),
        ("bfloat16", None, 1e-3, ["fine"]),
        ("bfloat16", {"rank": 2}, 1e-6, []),
        ("float32", None, 1e-6, []),
    ],
)
def test_a_step_that_rounding_swallows_is_told(
    tiny: tuple[Path, Path], dtype: str, lora: Any, rate: float, verdicts: list[str]
) -> None:
    recipe = recipe_of(*tiny, model__dtype=dtype, model__lora=lora, optimiser__learning_rate=rate)
    assert [one.verdict for one in doctor.check_precision(recipe)] == verdicts


def test_the_bound_of_rounding_is_that_of_torch() -> None:
    rate = 2.0**-20
    below, above = torch.tensor([rate * 2**8 * 0.99, rate * 2**9 * 1.01], dtype=torch.bfloat16)
    assert (below + rate).bfloat16() != below
    assert (above + rate).bfloat16() == above


def test_processes_without_gpus_of_their_own_fail(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(*tiny)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    machine = Machine("GPU", 8, 4, 80 * GIB, 0, has_gpu=True)
    assert any(one.verdict == "fails" for one in check_device(machine, recipe))
    assert any(one.key == "rollout.questions" for one in check_device(machine, recipe))


def test_without_a_gpu_processes_share_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    machine = doctor_memory.this_machine()
    assert (machine.devices, machine.has_gpu, machine.device_bytes) == (2, False, machine.host_bytes // 2)


def test_tables_and_json_hold_every_part(tiny: tuple[Path, Path]) -> None:
    diagnosis = diagnose(recipe_of(*tiny))
    columns, rows = memory_table(diagnosis)
    assert columns[1:] == [phase.name for phase in diagnosis.phases]
    assert rows[-2][0] == "all"
    tree = json.loads(json.dumps(diagnosis_json(diagnosis)))
    for phase in diagnosis.phases:
        parts = dict(tree["memory"]["phases"][phase.name])
        assert parts.pop("all") == sum(parts.values()) == phase.bytes
    assert tree["healthy"] is True
    assert memory_table(dataclasses.replace(diagnosis, phases=())) == ([], [])
