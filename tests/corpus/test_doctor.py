"""``doctor``: what is planted in a raw folder is found, by its path, with what to type about it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qoq_data.contract import starting_source
from qoq_data.corpus.checksums import read_checksums
from qoq_data.corpus.doctor import Finding, examine, is_healthy
from qoq_data.corpus.files_on_disk import file_problem, header_problem, missing_columns
from qoq_data.formats.storage import Store
from qoq_data.source import ExpectedFile, Source, SourceVersion
from qoq_data.sources import get_source, source_of

PATIENTS = {"ptb-xl": 4, "busi": 6, "mimic-ecg": 3}
LOGIN = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>\n"
PICTURE = "Dataset_BUSI_with_GT/benign/benign (1).png"
Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    made: dict[str, Path] = {}

    def tree(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("raw") / name
            made[name].mkdir()
            get_source(name).synthesize(made[name], 3, PATIENTS[name])
        return made[name]

    return tree


@pytest.fixture
def copied(written: Copy, tmp_path: Path) -> Copy:
    return lambda name: Path(shutil.copytree(written(name), tmp_path / name))


def look(name: str, tree: Path, *, checksums: bool = False) -> list[Finding]:
    return examine(get_source(name), Store(tree), checksums=checksums)


def errors(findings: list[Finding]) -> dict[str, str]:
    return {one.where: one.what for one in findings if one.severity == "error"}


@pytest.mark.parametrize("name", PATIENTS)
def test_a_sound_folder_is_told_what_to_type_next(name: str, written: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written(name).parent)
    findings = look(name, Path(name), checksums=True)
    assert is_healthy(findings), errors(findings)
    assert f"qoq-data build {name} --raw {name} --out corpora/{name}" in [one.what_to_type for one in findings]
    [counted] = [one for one in findings if one.what.startswith("version ")]
    assert get_source(name).spec.versions[0].name in counted.what
    assert f"its publisher says {get_source(name).spec.versions[0].items:,} items" in counted.what


@pytest.mark.parametrize("name", PATIENTS)
def test_findings_hold_no_absolute_path(name: str, copied: Copy) -> None:
    tree = copied(name)
    assert str(tree) not in repr(look(name, tree))
    for path in sorted(tree.iterdir()):
        path.rename(path.with_name(f"other_{path.name}"))
    assert str(tree) not in repr(look(name, tree))


@pytest.mark.parametrize("name", PATIENTS)
def test_t08_what_is_missing_is_named_with_where_it_comes_from(name: str, copied: Copy) -> None:
    spec = get_source(name).spec
    for file in spec.expected_files:
        if file.required:
            tree = copied(name)
            path = tree / file.path
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            findings = look(name, tree)
            assert list(errors(findings)) == [file.path]
            assert spec.homepage in errors(findings)[file.path]
            shutil.rmtree(tree)


def test_t08_a_list_of_another_release_is_told(copied: Copy) -> None:
    """The table of 1.0.1 beside the change log of 1.0.3: record 137 is one that a later release withdrew."""
    tree = copied("ptb-xl")
    table = tree / "ptbxl_database.csv"
    header, first, *rest = table.read_text().splitlines()
    withdrawn = (Path(starting_source.__file__).parents[1] / "sources" / "data" / "ptb_xl_repeats.csv").read_text()
    ecg_id = withdrawn.splitlines()[-1].split(",")[0]
    table.write_text("\n".join([header, f"{ecg_id},{first.partition(',')[2]}", *rest]) + "\n")
    (tree / "ptbxl_v103_changelog.txt").touch()
    (tree / "ptbxl_v103_changelog.txt").write_text("what changed\n")
    assert "ptbxl_database.csv is of release" in " ".join(errors(look("ptb-xl", tree)).values())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    [finding] = look("busi", tmp_path / "nowhere")
    assert (finding.severity, finding.what_to_type) == ("error", "qoq-data info busi")


def test_an_empty_folder(tmp_path: Path) -> None:
    spec = get_source("ptb-xl").spec
    assert list(errors(look("ptb-xl", tmp_path))) == [file.path for file in spec.expected_files if file.required]


@pytest.mark.parametrize("above", ["a folder", "physionet.org/files/ptb-xl/1.0.3"])
@pytest.mark.parametrize("name", PATIENTS)
def test_a_folder_too_high(
    name: str, above: str, written: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw" / above).parent.mkdir(parents=True)
    shutil.copytree(written(name), tmp_path / "raw" / above)
    [finding] = [one for one in look(name, Path("raw")) if one.severity == "error"]
    assert "too high" in finding.what
    assert finding.where == f"{above}/"
    quoted = f"'raw/{above}'" if " " in above else f"raw/{above}"
    assert finding.what_to_type == f"qoq-data doctor {name} --raw {quoted}"
    assert is_healthy(look(name, Path("raw") / above))


@pytest.mark.parametrize(
    ("name", "below", "up"),
    [
        ("busi", "Dataset_BUSI_with_GT", "/.."),
        ("busi", "Dataset_BUSI_with_GT/benign", "/../.."),
        ("ptb-xl", "records500", "/.."),
        ("mimic-ecg", "files", "/.."),
    ],
)
def test_a_folder_too_low(name: str, below: str, up: str, written: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written(name))
    [finding] = [one for one in look(name, Path(below)) if one.severity == "error"]
    assert "too low" in finding.what
    assert finding.what_to_type == f"qoq-data doctor {name} --raw {below}{up}"
    assert is_healthy(look(name, Path(f"{below}{up}")))


@pytest.mark.parametrize(("name", "other"), [("ptb-xl", "mimic-ecg"), ("busi", "ptb-xl"), ("mimic-ecg", "busi")])
def test_another_sources_folder(name: str, other: str, written: Copy) -> None:
    [finding] = [one for one in look(name, written(other)) if one.severity == "error"]
    assert f"({other})" in finding.what
    assert finding.what_to_type == f"qoq-data doctor {other} --raw DIR"


@pytest.mark.parametrize(
    ("archive", "command"), [("busi.zip", "unzip -d raw raw/"), ("busi.tar.gz", "tar -C raw -xf raw/")]
)
def test_an_archive_still_to_be_unpacked(
    archive: str, command: str, written: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = "zip" if archive.endswith(".zip") else "gztar"
    made = shutil.make_archive(str(tmp_path / "raw" / "busi"), kind, written("busi"))
    findings = {one.where: one for one in look("busi", Path("raw")) if one.severity == "error"}
    assert findings[Path(made).name].what_to_type == command + archive
    shutil.unpack_archive(made, tmp_path / "raw")
    assert is_healthy(look("busi", Path("raw")))


def test_an_archive_that_is_cut_short_or_a_web_page(written: Copy, tmp_path: Path) -> None:
    for kind in ("zip", "gztar"):
        made = Path(shutil.make_archive(str(tmp_path / "raw" / kind), kind, written("busi")))
        made.write_bytes(made.read_bytes()[:-2000])
    (tmp_path / "raw" / "page.zip").write_bytes(LOGIN)
    (tmp_path / "raw" / "empty.tar").touch()
    found = errors(look("busi", tmp_path / "raw"))
    assert "zip file is damaged" in found["zip.zip"]
    assert "gzip file is damaged" in found["gztar.tar.gz"]
    assert "web page" in found["page.zip"]
    assert "0 bytes" in found["empty.tar"]


def test_web_pages_and_empty_files_in_place_of_the_publishers(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    first, second, *_ = sorted((tree / "files").rglob("*.dat"))
    first.write_bytes(b"\xef\xbb\xbf \n" + LOGIN)
    second.write_bytes(b"")
    (tree / "machine_measurements.csv").write_bytes(LOGIN)
    found = errors(look("mimic-ecg", tree))
    assert "web page" in found[first.relative_to(tree).as_posix()]
    assert "0 bytes" in found[second.relative_to(tree).as_posix()]
    assert "web page" in found["machine_measurements.csv"]


def test_many_findings_of_a_kind_are_counted(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    spoilt = [path for path in sorted((tree / "files").rglob("*")) if path.is_file()]
    extra = [path.with_name(f"{path.name}.{n}") for path in spoilt[:2] for n in range(10)]
    for path in (*spoilt, *extra):
        path.write_bytes(b"")
    findings = [one for one in look("mimic-ecg", tree) if one.severity == "error" and one.where.startswith("files/")]
    [rest] = [one for one in look("mimic-ecg", tree) if "more: files are empty" in one.what]
    assert len(findings) == 20
    assert rest.what.startswith(f"{len(spoilt) + len(extra) - 20} more")


@pytest.mark.parametrize("name", ["ptb-xl", "mimic-ecg"])
def test_missing_columns_are_named_and_no_cell_is(name: str, copied: Copy) -> None:
    tree = copied(name)
    file = next(one for one in get_source(name).spec.expected_files if len(one.columns) > 3)
    table = tree / file.path
    header, *rows = table.read_text().split("\n")
    for column in file.columns[1:3]:
        header = header.replace(column, f"{column}_old", 1)
    table.write_text("\n".join([header, *rows]))
    findings = [one for one in look(name, tree) if one.severity == "error"]
    assert [one.where for one in findings] == [file.path]
    assert all(repr(column) in findings[0].what for column in file.columns[1:3])
    assert not any(cell in repr(findings) for cell in rows[0].split(",") if len(cell) > 6)


def test_a_table_that_does_not_scan_is_one_error(copied: Copy) -> None:
    tree = copied("ptb-xl")
    table = tree / "ptbxl_database.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    (tree / "SHA256SUMS.txt").unlink()
    [said] = errors(look("ptb-xl", tree)).values()
    assert "ptbxl_database.csv, row" in said
    assert not any("qoq-data build" in one.what_to_type for one in look("ptb-xl", tree))


def test_wrong_checksums(copied: Copy) -> None:
    """Tables are held against the publisher's list in any case, all else when asked to."""
    tree = copied("mimic-ecg")
    signal = next(iter(sorted((tree / "files").rglob("*.dat"))))
    data = bytearray(signal.read_bytes())
    data[100] ^= 1
    signal.write_bytes(data)
    where = signal.relative_to(tree).as_posix()
    assert is_healthy(look("mimic-ecg", tree))
    found = errors(look("mimic-ecg", tree, checksums=True))
    assert list(found) == [where]
    assert "other bytes than the publisher's" in found[where]
    links = tree / "waveform_note_links.csv"
    links.write_text("".join(links.read_text().splitlines(keepends=True)[:-1]))
    assert list(errors(look("mimic-ecg", tree))) == ["waveform_note_links.csv"]


def test_a_listed_file_that_is_absent(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    signal = next(iter(sorted((tree / "files").rglob("*.dat"))))
    signal.unlink()
    where = signal.relative_to(tree).as_posix()
    assert is_healthy(look("mimic-ecg", tree))
    assert errors(look("mimic-ecg", tree, checksums=True)) == {where: "the file is not there"}


def test_an_items_file_that_is_absent_is_a_warning(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    header = next(iter(sorted((tree / "files").rglob("*.hea"))))
    header.unlink()
    findings = look("mimic-ecg", tree)
    [finding] = [one for one in findings if one.where == header.relative_to(tree).as_posix()]
    assert finding.severity == "warning"
    assert finding.what.startswith("1 of ")
    assert "raise skip_limit" in finding.what


def test_a_list_of_checksums_in_every_spelling(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    text = f"{digest}  plain.csv\n{digest.upper()} *binary file.csv\r\n{digest} ./dotted.csv\n\nno checksum\n"
    (tmp_path / "SHA256SUMS.txt").write_bytes(text.encode())
    listed = read_checksums(Store(tmp_path), "SHA256SUMS.txt")
    assert listed.digests == dict.fromkeys(("plain.csv", "binary file.csv", "dotted.csv"), digest)
    assert listed.unreadable_lines == 1


def test_lines_that_are_no_checksum_are_counted(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    with (tree / "SHA256SUMS.txt").open("a") as file:
        file.write("not a line of sha256sum\n")
    [finding] = [one for one in look("mimic-ecg", tree) if "no checksum and path" in one.what]
    assert (finding.severity, finding.where) == ("warning", "SHA256SUMS.txt")


def test_a_checksum_of_a_path_outside_the_root_is_not_followed(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    digest = hashlib.sha256(b"a").hexdigest()
    with (tree / "SHA256SUMS.txt").open("a") as file:
        file.write(f"{digest} ../../etc/passwd\n")
    found = errors(look("mimic-ecg", tree, checksums=True))
    assert found == {"../../etc/passwd": "a path of the tables leads out of the source's folder"}


def test_extra_entries_are_notes(copied: Copy) -> None:
    tree = copied("busi")
    (tree / "my notes.txt").write_text("mine")
    [note] = [one for one in look("busi", tree) if one.where == "my notes.txt"]
    assert note.severity == "note"
    assert is_healthy(look("busi", tree))


def test_counts_that_are_the_publishers(written: Copy) -> None:
    source = get_source("mimic-ecg")
    items = source.scan(Store(written("mimic-ecg")), source.options_model()).collect().height
    exact = replace(source, spec=replace(source.spec, versions=(SourceVersion("1.0", items, 3),)))
    findings = examine(exact, Store(written("mimic-ecg")), checksums=False)
    [counted] = [one for one in findings if "as its publisher says" in one.what]
    assert counted.severity == "note"
    fewer = replace(source, spec=replace(source.spec, versions=(SourceVersion("1.0", items - 1, 3),)))
    findings = examine(fewer, Store(written("mimic-ecg")), checksums=False)
    assert any(one.severity == "warning" and f"its publisher says {items - 1} items" in one.what for one in findings)
    silent = replace(source, spec=replace(source.spec, versions=(SourceVersion("1.0"),)))
    findings = examine(silent, Store(written("mimic-ecg")), checksums=False)
    assert any("states no count" in one.what for one in findings)


def test_a_folder_that_may_not_be_read(written: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses one folder, as it does to others than root."""
    refused = written("busi") / "Dataset_BUSI_with_GT" / "benign"
    listing = os.scandir

    def scandir(path: str) -> Any:
        if Path(path) == refused:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    [finding] = look("busi", written("busi"))
    assert finding.what == "the folder cannot be read: permission denied"
    assert finding.where == "Dataset_BUSI_with_GT/benign"
    assert finding.what_to_type == "chmod -R u+rX DIR"


def test_a_link_that_runs_in_a_circle(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    (tree / "files" / "round").symlink_to(tree / "files")
    [finding] = look("mimic-ecg", tree)
    assert "symbolic links" in finding.what
    assert finding.where.startswith("files/round/round")
    assert len(finding.where) < 210


def small_source(columns: tuple[str, ...], path: str) -> Source:
    """The starting source with its table at another path."""
    source = source_of(starting_source)
    return replace(source, spec=replace(source.spec, expected_files=(ExpectedFile(path, columns=columns),)))


def test_a_compressed_table_is_looked_into(tmp_path: Path) -> None:
    data = gzip.compress(b"\xef\xbb\xbfa\tb\r\n" + b"1\t2\r\n" * 5000, mtime=0)
    (tmp_path / "t.tsv.gz").write_bytes(data)
    tree = Store(tmp_path)
    assert missing_columns(tree, "t.tsv.gz", ("a", "b", "c")) == ["c"]
    assert not file_problem(tree, "t.tsv.gz", whole=False)
    (tmp_path / "t.tsv.gz").write_bytes(data[:-20])
    [finding] = [
        one for one in examine(small_source(("a",), "t.tsv.gz"), tree, checksums=False) if one.severity == "error"
    ]
    assert (finding.where, "cut short" in finding.what) == ("t.tsv.gz", True)


def test_a_header_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,\xff\xfe\n1,2\n")
    assert "not UTF-8" in header_problem(Store(tmp_path), "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\n")
    assert "empty" in header_problem(Store(tmp_path), "t.csv")


def test_a_zip_that_is_no_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y" * 100)
    assert not file_problem(Store(tmp_path), "a.zip", whole=True)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert "damaged" in file_problem(Store(tmp_path), "a.zip", whole=True)


def test_a_folder_where_a_table_should_stand(copied: Copy) -> None:
    tree = copied("mimic-ecg")
    (tree / "record_list.csv").unlink()
    (tree / "record_list.csv").mkdir()
    assert "is not there" in errors(look("mimic-ecg", tree))["record_list.csv"]


def test_the_real_excerpts_are_excerpts(realdata: Path) -> None:
    """Real BUSI pictures: sound, fewer than published."""
    folder = next((path.parent for path in sorted((realdata / "busi").rglob("Dataset_BUSI_with_GT"))), None)
    if folder is None:
        pytest.skip("the real BUSI excerpt is absent")
    findings = look("busi", folder)
    assert is_healthy(findings), errors(findings)
    assert any("its publisher says 780 items" in one.what for one in findings)


def test_t08_a_file_under_its_other_name_is_no_missing_file(tmp_path: Path) -> None:
    source = get_source("mimic-ecg")
    source.synthesize(tmp_path, 0, 6)
    (tmp_path / "record_list.csv").rename(tmp_path / "record-list.csv")
    assert not [found for found in examine(source, Store(tmp_path), False) if found.severity == "error"]
