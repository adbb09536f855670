"""Every command: its help, its tables and their JSON, its exit code; and what starting the program pulls in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_build_command import Run, one_paragraph, run  # noqa: F401 - a fixture
from tests.corpus.building import MODULES, build, make_recipe, record_path, rows_of, touch_later
from tests.corpus.conftest import copied, pristine  # noqa: F401 - fixtures

Trees = Callable[[str], Path]
COMMANDS = ("list", "info", "doctor", "build", "verify", "stats", "recipe", "trace", "card", "view", "new-source")


@pytest.fixture
def corpus(copied: Trees, tmp_path: Path, run: Run) -> Path:  # noqa: F811
    """A corpus of two sources, built by the command, with a raw folder beside it."""
    (tmp_path / "raw").mkdir()
    for name in ("ptb-xl", "busi"):
        copied(name).rename(tmp_path / "raw" / name)
    recipe = "name: two\nsources: [{name: ptb-xl, options: {sampling_frequency_hz: 100}}, {name: busi}]\n"
    (tmp_path / "two.yaml").write_text(recipe)
    arguments = ("--raw", tmp_path / "raw", "--out", tmp_path / "out", "--workers", 1)
    assert run("build", tmp_path / "two.yaml", *arguments)[0] == 0
    return tmp_path / "out"


def test_help_names_every_command_and_each_has_its_own(run: Run) -> None:  # noqa: F811
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in out
        code, text, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert "Usage" in text
    assert run("--version")[1].strip().count(".") == 2


def test_list_and_info(run: Run) -> None:  # noqa: F811
    code, out, _ = run("list", "--json")
    assert code == 0
    assert set(MODULES) <= {one["source"] for one in json.loads(out)}
    assert all(name in run("list")[1] for name in MODULES)
    for name in MODULES:
        code, out, _ = run("info", name, "--json")
        assert code == 0
        assert json.loads(out)["name"] == name
        text = run("info", name)[1]
        assert json.loads(out)["homepage"] in text
        assert all(step in text for step in json.loads(out)["access_steps"])


def test_a_printed_recipe_is_a_recipe(run: Run, tmp_path: Path, corpus: Path) -> None:  # noqa: F811
    for name in MODULES:
        code, out, _ = run("recipe", name)
        assert code == 0
        (tmp_path / "again.yaml").write_text(out)
        assert run("recipe", tmp_path / "again.yaml")[1] == out


def test_verify_and_stats(corpus: Path, run: Run) -> None:  # noqa: F811
    code, out, _ = run("verify", corpus, "--json")
    assert (code, json.loads(out)["problems"]) == (0, [])
    code, out, _ = run("verify", corpus, "--deep", "--json")
    assert code == 0
    assert json.loads(out)["files"] > 40
    code, out, _ = run("stats", corpus, "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(out)] == ["ptb-xl", "busi"]
    assert "Benign" in run("stats", corpus)[1]
    shard = next((corpus / "data").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    code, out, err = run("verify", corpus)
    assert code == 1
    one_paragraph(err)
    assert shard.name in out


def test_trace(corpus: Path, run: Run) -> None:  # noqa: F811
    row_id = next(iter(row for row in rows_of(corpus) if row.startswith("ptb-xl")))
    code, out, _ = run("trace", row_id, "--corpus", corpus, "--json")
    assert code == 0
    assert json.loads(out)["agrees"] is True
    code, out, _ = run("trace", row_id, "--corpus", corpus)
    assert "it agrees in every column" in out
    assert "records100/" in out
    data = record_path(corpus.parent / "raw/ptb-xl", int(row_id.split("/")[1])).with_suffix(".dat")
    data.write_bytes(data.read_bytes()[::-1])
    touch_later(data)
    code, out, err = run("trace", row_id, "--corpus", corpus)
    assert code == 1
    one_paragraph(err)
    assert "differs" in out
    data.unlink()
    code, out, _ = run("trace", row_id, "--corpus", corpus)
    assert code == 1
    assert "absent" in out
    code, out, err = run("trace", "busi/none/diagnosis", "--corpus", corpus)
    assert (code, out) == (2, "")
    one_paragraph(err)


def test_doctor(corpus: Path, run: Run) -> None:  # noqa: F811
    raw = corpus.parent / "raw"
    code, out, _ = run("doctor", "busi", "--raw", raw / "busi", "--json")
    assert code == 0
    assert isinstance(json.loads(out), list)
    code, out, err = run("doctor", "busi", "--raw", raw / "ptb-xl")
    assert code == 1
    assert out
    one_paragraph(err)


def test_card_and_view(corpus: Path, run: Run, tmp_path: Path) -> None:  # noqa: F811
    code, out, _ = run("card", "busi", "--folder", tmp_path / "cards")
    assert code == 0
    assert out.strip().endswith("busi.md")
    assert run("card", "busi", "--folder", tmp_path / "cards", "--check")[0] == 0
    card = next((tmp_path / "cards").iterdir())
    card.write_text(card.read_text().replace("2020", "2021"))
    code, _, err = run("card", "busi", "--folder", tmp_path / "cards", "--check")
    assert code == 1
    one_paragraph(err)
    code, _, _ = run("view", corpus, "--png", tmp_path / "rows.png")
    assert code == 0
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run("view", corpus, "--png", tmp_path / "absent/rows.png")
    assert (code, out) == (1, "")
    one_paragraph(err)


CANARY = "ZZCANARYZZ"


def test_a_patients_words_and_numbers_go_nowhere(copied: Trees, tmp_path: Path, run: Run) -> None:  # noqa: F811
    """A mark in reports, header comments, file text and patient numbers, through every command and every error."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name in ("ptb-xl", "mimic-ecg"):
        copied(name).rename(raw / name)
    mark_ptb_xl(raw / "ptb-xl")
    number = mark_mimic(raw / "mimic-ecg")
    recipe = (
        "name: two\nsources:\n  - {name: ptb-xl, skip_limit: 1, options: {sampling_frequency_hz: 100}}\n"
        "  - {name: mimic-ecg, skip_limit: 1}\n"
    )
    (tmp_path / "two.yaml").write_text(recipe)
    said = "".join(map(str, run("build", tmp_path / "two.yaml", "--raw", raw, "--out", out, "--workers", 1)))
    rows = rows_of(out)
    for row_id in (next(iter(rows)), next(row for row in rows if row.startswith("mimic"))):
        said += "".join(map(str, run("trace", row_id, "--corpus", out)))
    for command in (("stats", out), ("verify", out), ("view", out, "--png", tmp_path / "v.png")):
        said += "".join(map(str, run(*command)))
    shown = ("question", "choices", "answer", "context", "patient", "study", "quality", "signals")
    text = said + "".join(str([row[name] for name in shown]) for row in rows.values())
    text += "".join((out / name).read_text() for name in ("README.md", "manifest.json", "skipped.jsonl"))
    assert "header_invalid" in text
    assert any(row_id.startswith("mimic-ecg/") for row_id in rows)
    assert CANARY not in text
    assert CANARY.lower() not in text.lower()
    assert number not in "".join(str([row[name] for name in shown if name != "signals"]) for row in rows.values())
    assert not [path for path in out.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    table = raw / "ptb-xl/ptbxl_database.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1].replace(",", f",{CANARY}", 2)]) + "\n")
    code, stdout, stderr = run("build", tmp_path / "two.yaml", "--raw", raw, "--out", out, "--workers", 1)
    assert code == 1
    one_paragraph(stderr)
    assert CANARY not in stdout + stderr


def mark_ptb_xl(tree: Path) -> None:
    import csv

    table = tree / "ptbxl_database.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["report"] = row["infarction_stadium1"] = row["pacemaker"] = f"{CANARY} seen"
        row["nurse"] = row["validated_by"] = CANARY
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for header in tree.rglob("*.hea"):
        header.write_text(header.read_text() + f"# {CANARY}\n")
    broken = record_path(tree, 3).with_suffix(".hea")
    broken.write_text(broken.read_text().replace("1000.0(0)/mV", f"{CANARY}(0)/mV", 1))


def mark_mimic(tree: Path) -> str:
    """Marks the headers' comments and a statement, and returns a patient's number."""
    for header in tree.rglob("*.hea"):
        header.write_text(header.read_text() + f"#{CANARY}\n")
    table = tree / "machine_measurements.csv"
    lines = table.read_text().splitlines()
    at = lines[0].split(",").index("report_17")
    cells = lines[1].split(",")
    if cells[at] == "" and len(cells) == len(lines[0].split(",")):
        cells[at] = f"{CANARY} statement"
        table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    return (tree / "record_list.csv").read_text().splitlines()[1].split(",")[0]


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    return {name.split(".")[0] for name in done.stderr.split()}


def test_importing_pulls_in_nothing_heavy() -> None:
    assert not modules_after("import qoq_data") & {"torch", "pandas", "polars", "datasets", "wfdb", "pyarrow", "numpy"}


def test_help_pulls_in_nothing_heavy() -> None:
    code = (
        "from qoq_data.cli import main\nsys.argv = ['qoq-data', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert not modules_after(code) & {"torch", "pandas", "polars", "datasets", "wfdb", "pyarrow", "scipy"}


def test_a_build_pulls_in_no_torch_and_no_wfdb(pristine: Trees, tmp_path: Path) -> None:  # noqa: F811
    build(tmp_path / "warm", make_recipe("busi"), {"busi": pristine("busi")})
    code = (
        "from pathlib import Path\nfrom tests.corpus.building import build, make_recipe\n"
        f"build(Path({str(tmp_path / 'out')!r}), make_recipe('busi'), {{'busi': Path({str(pristine('busi'))!r})}})"
    )
    assert not modules_after(code) & {"torch", "wfdb", "datasets", "neurokit2"}
