"""Cards of sources: what is generated, what a person's blocks keep, and what the check finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qoq_data.errors import UsageError
from qoq_data.publish.blocks import BLOCKS, END, begin, read_blocks
from qoq_data.publish.source_card import card_text, check_cards, write_cards
from qoq_data.source import Source
from qoq_data.sources import mimic_ecg, source_of
from tests.conftest import REPOSITORY
from tests.publish.corpora import BUSI, PTB_XL

MIMIC = source_of(mimic_ecg)
SOURCES = (BUSI, MIMIC, PTB_XL)


def with_block(text: str, name: str, written: str) -> str:
    return text.replace(f"{begin(name)}\n{END}", f"{begin(name)}\n\n{written}\n\n{END}")


def test_committed_cards_are_up_to_date_and_their_blocks_written() -> None:
    folder = REPOSITORY / "data_cards"
    assert check_cards(folder, SOURCES) == []
    for source in SOURCES:
        blocks = read_blocks((folder / f"{source.name}.md").read_text(encoding="utf-8"), source.name)
        assert all(len(blocks[name]) > 500 for name in BLOCKS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_card_holds_what_the_spec_says(source: Source) -> None:
    text = card_text(source, None)
    spec = source.spec
    said = [spec.homepage, str(spec.access), spec.identity_group, *spec.access_steps, *spec.context_fields]
    said += [one.url for one in spec.licences.values()] + [one.path for one in spec.expected_files]
    said += [task.name for task in spec.tasks] + [f"`{one.key}`" for task in spec.tasks for one in task.choices]
    said += [f"{version.items:,}" for version in spec.versions if version.items]
    assert [one for one in said if one not in text] == []


def test_what_is_written_into_pixels_is_told() -> None:
    marked = replace(BUSI, spec=replace(BUSI.spec, burned_in_text="Letters for the side."))
    assert "| written into the pixels | Letters for the side. |" in card_text(marked, None)
    assert "written into the pixels" not in card_text(BUSI, None)


def test_the_publishers_counts_stand_beside_the_papers() -> None:
    assert "| 1.0.3 | 21,799 | 18,869 | 21,837 |" in card_text(PTB_XL, None)
    assert "| 2020 | 780 | – | 780 |" in card_text(BUSI, None)


def test_tasks_have_answer_choices_tolerance_and_wordings() -> None:
    text = card_text(PTB_XL, None)
    assert "| `superclass` | any number of choices | 5 | – | 5 | yes | the publisher's files |" in text
    assert "| `heart_rate` | a number | – | ± 5 | 4 | when named | measured: `ecg_intervals.heart_rate_bpm` |" in text


def test_recipe_keys_of_a_source_stand_with_their_values() -> None:
    text = card_text(PTB_XL, None)
    assert "| `sampling_frequency_hz` | `500` | `100`, `500` |" in text
    assert "| `minimum_likelihood` | `0.0` | number from 0 to 100 |" in text
    assert "none of its own" in card_text(BUSI, None)


def test_a_changed_spec_changes_the_card_and_keeps_the_blocks() -> None:
    written = with_block(card_text(PTB_XL, None), "judgement", "Fold 9 and 10 are the good ones.\n\n* a | b <!-- c -->")
    changed = replace(PTB_XL, spec=replace(PTB_XL.spec, published_items=5))
    again = card_text(changed, written)
    assert "| 1.0.3 | 21,799 | 18,869 | 5 |" in again
    assert read_blocks(again, "x")["judgement"].strip() == "Fold 9 and 10 are the good ones.\n\n* a | b <!-- c -->"
    assert read_blocks(again, "x")["known-defects"] == ""


def test_a_card_made_again_is_the_same() -> None:
    once = with_block(card_text(MIMIC, None), "known-defects", "\n\n  An indented line stays so.\n\n\n")
    twice = card_text(MIMIC, once)
    assert card_text(MIMIC, twice) == twice
    assert "\n  An indented line stays so.\n" in twice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{begin('judgement')}\nlost", "line 1: the block 'judgement' is not closed"),
        (f"\n{begin('judgement')}\n{begin('known-defects')}\n{END}", "line 3: the block 'judgement' of line 2"),
        (f"{begin('opinion')}\n{END}", "line 1: there is no block 'opinion'"),
        (f"{begin('judgement')}\n{END}\n{begin('judgement')}\n{END}", "line 3: the block 'judgement' stands twice"),
        (f"text\n{END}", "line 2: this ends a block that was not begun"),
        (f"<!-- By hand: judgement -->\nlost\n{END}", "line 1: a mark is a line of its own"),
        (f"{begin('judgement')} lost\n{END}", "line 1: a mark is a line of its own"),
        (f"{begin('judgement')}\nlost {END}", "line 2: a mark is a line of its own"),
    ],
)
def test_blocks_that_would_lose_what_a_person_wrote_are_errors(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        card_text(PTB_XL, text)
    assert said in str(caught.value)
    assert "ptb-xl.md" in str(caught.value)


def test_the_check_names_missing_stale_damaged_and_orphan_cards(tmp_path: Path) -> None:
    assert [path.name for path in write_cards(tmp_path, SOURCES)] == ["busi.md", "mimic-ecg.md", "ptb-xl.md"]
    assert check_cards(tmp_path, SOURCES) == []
    (tmp_path / "busi.md").unlink()
    stale = tmp_path / "mimic-ecg.md"
    stale.write_text(stale.read_text(encoding="utf-8").replace("800,035", "800,036"), encoding="utf-8")
    damaged = tmp_path / "ptb-xl.md"
    damaged.write_text(damaged.read_text(encoding="utf-8").replace(END, "", 1), encoding="utf-8")
    (tmp_path / "gone.md").write_text("# Gone\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("# The cards\n", encoding="utf-8")
    missing, old, broken, orphan = check_cards(tmp_path, SOURCES)
    assert "busi.md is missing" in missing
    assert "mimic-ecg.md is stale" in old
    assert "is not closed" in broken
    assert "gone.md is the card of no source" in orphan


def test_a_check_of_some_sources_takes_the_others_cards_for_no_orphans(tmp_path: Path) -> None:
    write_cards(tmp_path, SOURCES)
    assert check_cards(tmp_path, [BUSI]) == []


def test_an_error_in_one_card_leaves_all_files_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "ptb-xl.md").write_text(f"{begin('judgement')}\nnot closed\n", encoding="utf-8")
    with pytest.raises(UsageError):
        write_cards(tmp_path, SOURCES)
    assert [path.name for path in tmp_path.iterdir()] == ["ptb-xl.md"]
    assert "not closed" in (tmp_path / "ptb-xl.md").read_text(encoding="utf-8")
