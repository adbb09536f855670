"""Recipes: whatever is wrong is said at once and by name; whatever is right comes through unchanged."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qoq_data import recipe as recipe_module
from qoq_data.errors import RecipeError, UnknownNameError
from qoq_data.recipe import (
    PaperRecipe,
    Recipe,
    SignalRecipe,
    SourceRecipe,
    combined_recipe,
    default_recipe,
    find_recipe,
    parse_recipe,
    recipe_text,
)
from qoq_data.source import SourceOptions
from qoq_data.sources import registry

SOURCES = registry()
LEAST = "name: a\nsources: [{name: busi}]\n"


def parse(text: str, **overrides: Any) -> Recipe:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return parse_recipe(text, "my.yaml", SOURCES, dotted)


def problems(text: str, **overrides: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, **overrides)
    assert caught.value.where == "my.yaml"
    return caught.value.problems


def test_every_problem_of_a_recipe_is_said_at_once() -> None:
    said = problems(
        "nam: a\nsample: 7\nsplit: {tset: 0.1, validation: 0.9}\nsignals: {paper: {layuot: 3x4}}\n"
        "sources: [{name: bsui}, {name: ptb-xl, tasks: [rythm], options: {seven_clas: corrected}}, "
        "{name: busi, task: x}]"
    )
    wanted = [
        "name: field required",
        "nam: there is no such key. Did you mean 'name'?",
        "sample: input should be less than or equal to 1",
        "split.tset: there is no such key. Did you mean 'test'?",
        "split.validation: input should be less than 0.5",
        "signals.paper.layuot: there is no such key. Did you mean 'layout'?",
        "sources: there is no source 'bsui'. Did you mean 'busi'?",
        "sources.ptb-xl.tasks: there is no task 'rythm'. Did you mean 'rhythm'?",
        "sources.ptb-xl.options.seven_clas: there is no such key. Did you mean 'seven_class'?",
        "sources.2.task: there is no such key. Did you mean 'tasks'?",
    ]
    assert sorted(said) == sorted(wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sed: 1", "sed: there is no such key. Did you mean 'seed'?"),
        ("boxes: {min_area: 3}", "boxes.min_area: there is no such key. Did you mean 'min_area_px'?"),
        ("shards: {row: 3}", "shards.row: there is no such key. Did you mean 'rows'?"),
        ("masks: maybe", "masks: input should be a valid boolean"),
        ("images: {encoding: gif}", "images.encoding: input should be 'jpeg' or 'png'"),
        ("images: 3", "images: it is not a mapping of keys to values"),
        ("split: [1]", "split: it is not a mapping of keys to values"),
        ("seed: -1", "seed: input should be greater than or equal to 0"),
        ("seed: abc", "seed: input should be a valid integer"),
        ("seed: 0x10000000000000000", "seed: input should be less than 9223372036854775808"),
        ("sample: 0", "sample: input should be greater than 0"),
        ("signals: {leads: II}", "signals.leads: input should be a valid tuple"),
        ("patient_key: ''", "patient_key: string should have at least 1 character"),
        ("1: 2", "1: keys should be strings"),
    ],
)
def test_one_problem_is_named_with_its_key(text: str, said: str) -> None:
    assert problems(LEAST + text) == [said]


@pytest.mark.parametrize(
    "key", ["sample", "split.test", "signals.resample_hz", "signals.window_s", "boxes.min_area_mm2"]
)
@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_numbers_that_are_none_are_refused(key: str, number: str) -> None:
    *section, name = key.split(".")
    text = f"{section[0]}: {{{name}: {number}}}" if section else f"{name}: {number}"
    assert problems(LEAST + text) == [f"{key}: input should be a finite number"]


def test_options_of_a_source_take_no_number_that_is_none() -> None:
    text = "name: a\nsources: [{name: ptb-xl, options: {minimum_likelihood: .nan}}]"
    assert problems(text) == ["sources.ptb-xl.options.minimum_likelihood: input should be a finite number"]

    class Own(SourceOptions):
        share: float = 0.0

    with pytest.raises(ValidationError):
        Own(share=math.inf)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("[{name: busi}, {name: busi}]", "sources: busi stands twice"),
        ("[{name: busi, tasks: [colour]}]", "sources.busi.tasks: there is no task 'colour'. There are: diagnosis."),
        ("[{name: busi, tasks: []}]", "sources.0.tasks: tuple should have at least 1 item after validation, not 0"),
        ("[]", "sources: tuple should have at least 1 item after validation, not 0"),
        ("busi", "sources: input should be a valid tuple"),
        ("[busi]", "sources.0: it is not a mapping of keys to values"),
        ("[{tasks: [diagnosis]}]", "sources.0.name: field required"),
    ],
)
def test_what_is_wrong_with_the_sources_is_named(sources: str, said: str) -> None:
    assert problems(f"name: a\nsources: {sources}") == [said]


@pytest.mark.parametrize("name", ["A", "a b", "../a", "-a", "a/b", "", "a\n", "ä"])
def test_names_that_could_not_be_a_folder_are_refused(name: str) -> None:
    assert len(problems(yaml.safe_dump({"name": name, "sources": [{"name": "busi"}]}))) == 1


def test_splits_leave_something_to_train_on() -> None:
    assert len(problems(LEAST + "split: {validation: 0.5, test: 0.5}")) == 2
    assert parse(LEAST + "split: {validation: 0.49, test: 0.49}").split.test == 0.49


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2", "line 4: the key 'seed' stands twice"),
        ("split: {test: 0.1, test: 0.2}", "line 3: the key 'test' stands twice"),
        ("split: &s {test: 0.1}\nboxes: *s", "line 4: a recipe has no aliases (*); write the value out"),
        ("? [a, b]\n: 1", "line 3: a key is no plain word"),
        ("seed: [", "line 3: expected the node content, but found '<stream end>'"),
        ("---\nname: b", "line 3: but found another document"),
        ("seed: 2024-99-99", "it is not YAML"),
        ("seed: !!int abc", "it is not YAML"),
        ("masks: !!bool maybe", "it is not YAML"),
        ("seed: !!timestamp soon", "it is not YAML"),
        ("seed: " + "9" * 5000, "it is not YAML"),
        ("patient_key: \x07", "it is not YAML"),
    ],
)
def test_yaml_that_is_broken_is_said_so_with_its_line(text: str, said: str) -> None:
    assert problems(LEAST + text) == [said]


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/tuple [1]", "!own 3"]
)
def test_tags_make_no_objects(tag: str) -> None:
    assert len(problems(f"{LEAST}seed: {tag}")) == 1
    assert "could not determine a constructor" in problems(f"{LEAST}seed: {tag}")[0]


def test_merged_aliases_do_not_unfold_to_more_than_memory_holds() -> None:
    levels = ["x0: &x0 {a: 1}"]
    levels += [f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 20)}]}}" for n in range(1, 20)]
    assert problems("\n".join(levels)) == ["line 2: a recipe has no aliases (*); write the value out"]


@pytest.mark.parametrize("text", ["a: " + "[" * 800, "a: " + "{a: " * 800 + "}" * 800, "- " * 1500])
def test_nesting_without_end_is_no_crash(text: str) -> None:
    assert problems(text) == ["it is not YAML"]


@pytest.mark.parametrize("text", ["", "# only a comment", "abc", "[1, 2]", "3", "null"])
def test_what_is_no_mapping_is_no_recipe(text: str) -> None:
    assert problems(text) == ["it is not a mapping of keys to values"]


def test_a_text_larger_than_a_recipe_is_not_parsed() -> None:
    assert problems(LEAST + "# " + "x" * (1 << 20)) == ["it is larger than a recipe can be"]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.text(max_size=60), st.sampled_from(["", LEAST, LEAST + "split: "]))
def test_no_text_gets_past_the_recipe_error(text: str, before: str) -> None:
    with contextlib.suppress(RecipeError):
        parse(before + text)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "x"]), _VALUES, max_size=4))
def test_no_tree_of_wrong_types_gets_past_the_recipe_error(tree: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"name": "a", "sources": [{"name": "busi"}]}
    with contextlib.suppress(RecipeError):
        parse(yaml.safe_dump(sound | tree))


def test_overrides_win_and_make_the_sections_they_need() -> None:
    assert parse(LEAST, seed=3, signals__paper__layout="column").signals.paper == PaperRecipe(layout="column")
    assert parse(LEAST + "split: {test: 0.2, validation: 0.3}", split__test=0.1).split.model_dump() == {
        "validation": 0.3,
        "test": 0.1,
    }
    assert parse(LEAST + "split:\n", split__test=0.2).split.test == 0.2
    assert problems(LEAST, split__tset=1) == ["split.tset: there is no such key. Did you mean 'test'?"]


@pytest.mark.parametrize(("text", "key"), [("split: x", "split__test"), ("", "sources__0__name"), ("", "name__x")])
def test_an_override_below_what_is_no_section_is_an_error(text: str, key: str) -> None:
    dotted = key.replace("__", ".")
    assert problems(LEAST + text, **{key: 1}) == [f"{dotted}: it cannot be set, for what stands above it is no section"]


@pytest.mark.parametrize("name", list(SOURCES))
def test_the_text_of_each_source_reads_back_as_the_same_recipe(name: str) -> None:
    made = default_recipe(SOURCES[name])
    text = recipe_text(made, SOURCES)
    assert parse(text) == made
    assert recipe_text(parse(text), SOURCES) == text


def test_the_text_names_every_key_and_says_what_it_means() -> None:
    text = recipe_text(default_recipe(SOURCES["ptb-xl"]), SOURCES)
    tree = yaml.safe_load(text)
    assert set(tree) == set(Recipe.model_fields)
    assert set(tree["sources"][0]) == set(SourceRecipe.model_fields)
    assert set(tree["sources"][0]["options"]) == set(SOURCES["ptb-xl"].options_model.model_fields)
    assert set(tree["signals"]) == set(SignalRecipe.model_fields)
    assert "# of every draw" in text


@pytest.mark.parametrize("name", list(SOURCES))
def test_the_text_can_be_edited_key_by_key(name: str) -> None:
    text = recipe_text(default_recipe(SOURCES[name]), SOURCES)
    edited = text.replace("seed: 0", "seed: 5").replace("rows_per_record: one", "rows_per_record: all")
    assert (parse(edited).seed, parse(edited).rows_per_record) == (5, "all")


def test_several_sources_stand_in_one_text() -> None:
    made = parse(combined_recipe(list(SOURCES), SOURCES))
    assert [entry.name for entry in made.sources] == list(SOURCES)
    assert made.name == "-".join(SOURCES)


_WORDS = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["a, b", "null", "true", "1e5", "# x", "a: b", "[", "~", "*a"]
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(_WORDS, st.lists(_WORDS, min_size=1, max_size=3), st.floats(1e-300, 4000), st.integers(0, (1 << 63) - 1))
def test_any_recipe_survives_its_own_text(key: str, leads: list[str], rate: float, seed: int) -> None:
    signals = SignalRecipe(leads=tuple(leads), paper=PaperRecipe(lead=leads[0]), resample_hz=rate)
    made = Recipe(name="a", sources=(SourceRecipe(name="busi"),), patient_key=key, signals=signals, seed=seed)
    assert parse(recipe_text(made, SOURCES)) == made


@pytest.mark.parametrize("path", sorted((Path(recipe_module.__file__).parent.parent / "recipes").glob("*.yaml")))
def test_every_recipe_that_ships_is_sound_and_found_by_name(path: Path) -> None:
    text, where = find_recipe(path.stem, SOURCES)
    assert where == path.name
    assert parse(text).name == path.stem


def test_a_recipe_is_found_by_file_and_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.yaml").write_text(LEAST, encoding="utf-8")
    assert find_recipe(str(tmp_path / "my.yaml"), SOURCES) == (LEAST, "my.yaml")
    monkeypatch.chdir(tmp_path)
    assert find_recipe("my.yaml", SOURCES) == (LEAST, "my.yaml")
    text, where = find_recipe("busi", SOURCES)
    assert (parse(text), where) == (default_recipe(SOURCES["busi"]), "the recipe of busi")


@pytest.mark.parametrize(
    "name", ["", "..", "../demo", "../recipes/demo", "/etc/passwd", "demo\0", "demo.yaml", "Demo", "~"]
)
def test_names_reach_no_file_that_they_do_not_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "/etc/passwd":
        assert len(problems(find_recipe(name, SOURCES)[0])) == 1
        return
    with pytest.raises(UnknownNameError) as caught:
        find_recipe(name, SOURCES)
    assert str(tmp_path) not in str(caught.value)


def test_files_that_are_no_recipe_text_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(RecipeError, match="it is not UTF-8 text"):
        find_recipe(str(tmp_path / "latin.yaml"), SOURCES)
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="larger than a recipe"):
        find_recipe(str(tmp_path / "huge.yaml"), SOURCES)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UnknownNameError, match=r"There is no recipe file folder\.yaml"):
        find_recipe(str(tmp_path / "folder.yaml"), SOURCES)


def test_a_name_that_is_nearly_right_is_offered() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'ptb-xl'"):
        find_recipe("ptbxl", SOURCES)
    with pytest.raises(UnknownNameError, match="Did you mean 'demo'"):
        find_recipe("dmo", SOURCES)
