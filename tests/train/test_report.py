"""A run as a page and pictures: it stands alone, it is the same each time, and it shows no row that it may not."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml

from qoq_data.errors import MissingExtraError, UsageError
from qoq_data.licence import Redistribution
from qoq_data.record import Split
from qoq_train.report import write_report
from qoq_train.report.canvas import inline
from qoq_train.report.evaluations import Evaluation, evaluations_of, with_intervals
from qoq_train.report.pictures import domain_bars, gap_curve, phase_times, reward_curves
from qoq_train.report.record import read_run
from qoq_train.report.samples import samples_of, spread
from qoq_train.report.series import MOST_POINTS, smoothed, smoothing_window, thinned
from qoq_train.report.terms import Terms, terms_of
from tests.train.run_folders import CORPUS, answered, line, write_completions, write_lines, write_run

OPEN = {"manifest_sha256": CORPUS, "licence": "CC-BY-4.0", "redistribution": "open"}
EVIL = '<script>alert("x")</script> & \x00\u202e </pre><img src=x onerror=alert(1)>'
SVG = "{http://www.w3.org/2000/svg}"


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path, **more: Any) -> str:
    return write_report(folder, replicates=20, **more).read_text(encoding="utf-8")


def make_run(folder: Path) -> Path:
    rows = {(Split.VALIDATION, 0): answered(0.3, 1), (Split.VALIDATION, 4): answered(0.9, 2)}
    write_run(folder, corpus=OPEN, rows=rows)
    write_completions(folder, 1, ["one", "two"], [0.25, 0.5])
    write_completions(folder, 4, [EVIL, "fine"], [0.125, 1.0])
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(make_run(tmp_path_factory.mktemp("page") / "run"))


def test_the_page_stands_alone(page: str) -> None:
    found = Elements(page)
    tags = Counter(tag for tag, _ in found.elements)
    assert not tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "image", "foreignobject"}
    assert tags["svg"] == 4
    for _, attributes in found.elements:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    ids = Counter(attributes["id"] for _, attributes in found.elements if "id" in attributes)
    assert max(ids.values()) == 1
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert used
    assert used <= ids.keys()
    assert "default-src 'none'" in page


def test_the_page_tells_what_the_run_was_and_what_came_of_it(page: str) -> None:
    text = " ".join(Elements(page).text.split())
    for said in (
        "before training", "after 4 steps", "mean of domains", "macro-F1", "top-1 (exact answer)",
        "accuracy, one label against the rest", CORPUS, "CC-BY-4.0", "2.13.0", "advantage: drpo", "400 tokens drawn",
        "What was left out", "There is no evaluations.jsonl.",
    ):  # fmt: skip
        assert said in text
    assert "/home" not in text
    assert "corpus: …/corpus" in text


def test_the_same_run_gives_the_same_bytes_wherever_the_page_goes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "site" / "index.html"
    assert write_report(run, replicates=20) == run / "report.html"
    assert write_report(run, out=out, replicates=20) == out
    assert out.read_bytes() == (run / "report.html").read_bytes()
    pictures = {path.name: path.read_bytes() for path in (run / "pictures").iterdir()}
    assert pictures == {path.name: path.read_bytes() for path in (out.parent / "pictures").iterdir()}
    assert sorted(pictures) == ["domains-validation.svg", "gap.svg", "reward.svg", "time.svg"]
    assert not re.search(rb"20[0-9]{2}-[0-9]{2}-[0-9]{2}", pictures["reward.svg"])


def test_completions_of_an_open_corpus_are_shown_and_are_text(page: str) -> None:
    assert "<script>" not in page
    assert "<img" not in page
    assert "\x00" not in page
    assert "\u202e" not in page
    shown = unescape(re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)[2])
    assert shown == EVIL.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert "Step 4, busi/0: reward 0.125, answer 0.125" in page
    assert "Step 1, busi/1: reward 0.500, answer 0.500" in page


def test_l01_completions_of_any_other_corpus_stay_out(run: Path) -> None:
    for redistribution in ("none", "ids", "same-terms", "public", 7, None):
        (run / "corpus.json").write_text(json.dumps(OPEN | {"redistribution": redistribution}))
        assert terms_of(read_run(run)).reason, redistribution
    (run / "corpus.json").write_text(json.dumps(OPEN | {"redistribution": "ids"}))
    page = page_of(run)
    assert "busi/" not in page
    assert "fine" not in page
    assert "Not shown: the corpus (CC-BY-4.0) lets its rows be passed on as &#x27;ids&#x27; only." in page
    asked = page_of(run, with_restricted_completions=True)
    assert "<pre>fine</pre>" in asked
    assert "Not to be passed on:" in asked


def test_l01_the_licence_is_that_of_the_corpus_itself_where_the_run_does_not_say(
    run: Path, corpus_folder: Path
) -> None:
    digest = hashlib.sha256((corpus_folder / "manifest.json").read_bytes()).hexdigest()
    (run / "corpus.json").write_text(json.dumps({"manifest_sha256": digest}))

    def of(sources: object) -> Terms:
        data = {"corpus": str(corpus_folder), "sources": sources, "a_key_of_another_version": 1}
        (run / "recipe.yaml").write_text(yaml.safe_dump({"name": "run", "data": data}))
        return terms_of(read_run(run))

    assert of(["jichi"]) == Terms("CC-BY-4.0", Redistribution.OPEN, "")
    for sources in (None, ["busi"], ["jichi", "busi"], ["no-such-source"], 7):
        assert of(sources).reason
    (run / "corpus.json").write_text(json.dumps({"manifest_sha256": "0" * 64}))
    assert "the corpus that its recipe names is gone or is another" in of(["jichi"]).reason
    (run / "recipe.yaml").write_text("data: gone\n")
    assert terms_of(read_run(run)).redistribution is None


@pytest.mark.parametrize("kept", [["recipe.yaml"], ["metrics.jsonl"], ["corpus.json"]])
def test_half_a_folder_is_a_page_that_says_what_is_missing(run: Path, kept: list[str]) -> None:
    for path in run.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = Elements(page_of(run)).text
    for name in {"recipe.yaml", "metrics.jsonl", "corpus.json", "versions.json"} - set(kept):
        assert f"There is no {name}." in text
    assert ("Reward by domain: no picture, for there is no reward to draw." in text) is (kept != ["metrics.jsonl"])


def test_a_killed_run_with_numbers_that_are_none_is_a_page(run: Path) -> None:
    lines = [line(1, reward=math.nan), line(2, **{"rollout_gap/max": math.inf, "seconds/update": -math.inf})]
    write_lines(run / "metrics.jsonl", lines)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    (run / "completions" / "step-000004.parquet").write_bytes(b"PAR1 cut")
    (run / "left_out.jsonl").write_text('{"row": "busi/secret", "tokens": 9}\n' * 2)
    (run / "failed").mkdir()
    (run / "failed" / "step-000003.parquet").touch()
    page = page_of(run)
    text = Elements(page).text
    assert "A step failed: what led to it is in failed/step-000003.parquet." in text
    assert "The last line of metrics.jsonl, 3, is cut off" in text
    assert "completions/step-000004.parquet is damaged" in text
    assert "1 rows of training whose prompts were longer" in text
    assert "busi/secret" not in text
    assert "nan" not in re.sub(r"\bdominan\w*", "", page.lower())


def test_no_run_no_page(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        write_report(tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"qoq-med\[train\]"):
        write_report(run)


def texts_of(svg: bytes) -> list[str]:
    return ["".join(each.itertext()) for each in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


def chosen(run: Path) -> tuple[Evaluation, Evaluation]:
    first, last = (with_intervals(one, replicates=20) for one in evaluations_of(read_run(run))[0])
    return first, last


def test_bars_have_intervals_and_the_constant_answer_and_text_is_text(run: Path) -> None:
    first, last = chosen(run)
    told = texts_of(domain_bars(first, last))
    for said in ("mean of domains", "ct", "mri", "macro-F1", "before training", "after 4 steps",
                 "95 % interval by patient", "best constant answer"):  # fmt: skip
        assert said in told
    assert "box IoU" not in told
    plain = Evaluation(last.split, 4, {"overall": {"macro_f1": last.scores["overall"]["macro_f1"]}})
    assert "before training" not in texts_of(domain_bars(None, plain))
    with pytest.raises(ValueError, match="none of the figures"):
        domain_bars(None, Evaluation(Split.TEST, 4, {}))


def test_a_bar_is_as_long_as_its_figure(run: Path) -> None:
    """The lengths of the bars in the picture, against the figures of the evaluation."""
    _, last = chosen(run)
    svg = domain_bars(None, last).decode()
    lengths = []
    for path in re.findall(r'<path d="M ([^"]*?)z\s*" clip-path[^>]*style="fill: #0072b2"', svg):
        numbers = [tuple(map(float, pair.split())) for pair in re.split(r"\s*L\s*", path.strip()) if pair.strip()]
        lengths.append(max(x for x, _ in numbers) - min(x for x, _ in numbers))
    names, places = ("macro_f1", "exact_match", "accuracy_one_vs_rest"), ("overall", "ct", "mri")
    values = [last.scores[place][name].value for name in names for place in places]
    assert len(lengths) == len(values)
    assert np.divide(lengths, values) == pytest.approx(lengths[0] / values[0], rel=1e-3)


@pytest.mark.parametrize("name", ["$x^2$", "$\\frac$", "<b>&amp;\"'", "眼底"])
def test_a_domain_of_any_name_is_drawn_as_it_stands(name: str) -> None:
    assert name in texts_of(reward_curves({name: {1: 0.5, 2: 0.25}}))


def test_a_name_of_any_length_and_any_number_of_domains() -> None:
    assert "a" * 31 + "…" in texts_of(reward_curves({"a" * 300: {1: 0.5}}))
    with pytest.raises(ValueError, match="more than 48 domains"):
        reward_curves({str(i): {1: 0.5} for i in range(5000)})


def test_one_step_and_very_many() -> None:
    assert reward_curves({"ct": {7: 0.5}})
    assert gap_curve({7: 1e-7}, {7: 1e-6})
    assert phase_times({"generate": {7: 2.0}})
    many = {step: 0.5 + 0.3 * math.sin(step) for step in range(1, 3_001)}
    svg = reward_curves(dict.fromkeys("abcdefghijk", many))
    assert len(svg) < 180_000
    assert len(phase_times({"generate": many, "update": many})) < 180_000


def test_what_cannot_be_drawn_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="no reward"):
        reward_curves({"ct": {}})
    with pytest.raises(ValueError, match="no gap above 0"):
        gap_curve({1: 0.0}, {1: 0.0})
    with pytest.raises(ValueError, match="no time"):
        phase_times({})


def test_the_time_of_each_phase_is_in_the_legend() -> None:
    told = texts_of(phase_times({"generate": {1: 2.0, 2: 4.0}, "update": {2: 2.0}}))
    assert "generate 6 s (75%)" in told
    assert "update 2 s (25%)" in told


def test_smoothing_is_the_mean_of_the_steps_near_by() -> None:
    values = {step: float((step * 7) % 5) for step in (1, 2, 3, 5, 9, 10, 11, 30)}
    at, means = smoothed(values, 6)
    assert at.tolist() == sorted(values)
    for step, mean in zip(at, means, strict=True):
        near = [value for other, value in values.items() if abs(other - step) <= 3]
        assert mean == pytest.approx(sum(near) / len(near))
    assert [smoothing_window(steps) for steps in (0, 20, 300, 10_000)] == [5, 5, 30, 50]


def test_a_long_series_keeps_its_mean_and_its_largest() -> None:
    values = {step: float(step % 13) for step in range(1, 5 * MOST_POINTS + 1)}
    at, means = thinned(values)
    assert len(at) == MOST_POINTS
    assert at[0] == 3
    assert means[0] == pytest.approx(sum(values[step] for step in range(1, 6)) / 5)
    assert means.mean() == pytest.approx(sum(values.values()) / len(values))
    _, largest = thinned(values, np.maximum)
    assert largest[2] == 12
    short = {2: 0.5, 1: 0.25}
    assert [each.tolist() for each in thinned(short)] == [[1, 2], [0.25, 0.5]]


def test_a_picture_in_a_page_keeps_its_ids_to_itself() -> None:
    svg = reward_curves({'x id="y"': {1: 0.5, 2: 0.25}})
    a, b = inline(svg, "a", 'A "title" <i>'), inline(svg, "b", "B")
    ids = [set(re.findall(r'<[^<>]*?\sid="([^"]+)"', each)) for each in (a, b)]
    assert not ids[0] & ids[1]
    assert all(name.startswith("a-") for name in ids[0])
    assert 'aria-label="A &quot;title&quot; &lt;i&gt;"' in a
    assert ET.fromstring(a).tag == f"{SVG}svg"  # noqa: S314


def test_samples_go_from_the_lowest_to_the_highest_reward(tmp_path: Path) -> None:
    write_completions(tmp_path, 1, [f"t{i}" for i in range(9)], [i / 8 for i in (4, 0, 8, 1, 7, 2, 6, 3, 5)])
    found, notes = samples_of(tmp_path, 3)
    assert [one.reward for one in found] == [0.0, 0.5, 1.0]
    assert found[0].parts == {"answer": 0.0, "box": None}
    assert notes == ()
    write_completions(tmp_path, 2, ["x" * 10_000], [0.5])
    assert len(samples_of(tmp_path, 3)[0][-1].text) == 4000
    write_completions(tmp_path, 3, ["x"], [math.nan])
    assert samples_of(tmp_path, 3)[1] == ("completions/step-000003.parquet is damaged, or holds no completions.",)
    assert [spread(10, most) for most in (0, 1, 2, 4, 20)] == [[], [9], [0, 9], [0, 3, 6, 9], list(range(10))]
