"""``list``, ``info``, ``doctor`` and ``new-source``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command("list")(list_sources)
    app.command("info")(info)
    app.command("doctor")(doctor)
    app.command("new-source")(new_source)


def list_sources(as_json: Json = False) -> None:
    """List the sources: domain, access, licence and counts."""
    from qoq_data.cli.printing import print_json, print_table
    from qoq_data.licence import strictest
    from qoq_data.sources import registry

    table = []
    for source in registry().values():
        spec = source.spec
        licence, redistribution = strictest(spec.licences.values())
        table.append(
            {
                "source": spec.name,
                "title": spec.title,
                "domain": str(spec.domain),
                "access": str(spec.access),
                "licence": licence,
                "redistribution": str(redistribution),
                "items": spec.versions[0].items,
            }
        )
    if as_json:
        print_json(table)
        return
    print_table(list(table[0]), [list(row.values()) for row in table])


def info(name: Annotated[str, typer.Argument(help="A source of 'qoq-data list'.")], as_json: Json = False) -> None:
    """Show what there is to know of a source: how to get it, its layout, tasks and licence."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json, print_line, print_table
    from qoq_data.sources import get_source

    spec = get_source(name).spec
    if as_json:
        print_json(asdict(spec))
        return
    print_line(f"{spec.title} ({spec.name})\n{spec.homepage}\n{spec.citation}\n")
    print_table(
        ["what", "licence", "redistribution", "text"],
        [[role, one.identifier, str(one.redistribution), one.url] for role, one in spec.licences.items()],
    )
    print_line(f"\nAccess: {spec.access}. To get it:")
    for number, step in enumerate(spec.access_steps, 1):
        print_line(f"  {number}. {step}")
    versions = [[one.name, one.items, one.patients] for one in spec.versions]
    print_table(["version", "items", "patients"], versions, "")
    files = [[one.path, "required" if one.required else "optional"] for one in spec.expected_files]
    print_table(["file", ""], files, "\nIn the raw folder:")
    tasks = [[t.name, str(t.answer_type), ", ".join(c.text for c in t.choices), t.tolerance] for t in spec.tasks]
    print_table(["task", "answer", "choices", "tolerance"], tasks, "")
    print_line(f"\nSplits: {spec.grouping}")
    if spec.burned_in_text:
        print_line(f"\nWritten into the pixels: {spec.burned_in_text}")


def doctor(
    name: Annotated[str, typer.Argument(help="A source of 'qoq-data list'.")],
    raw: Annotated[str | None, typer.Option(help="Raw folder; default: QOQ_RAW/<source>.")] = None,
    checksums: Annotated[bool, typer.Option("--checksums", help="Check every file that has a published one.")] = False,
    as_json: Json = False,
) -> None:
    """Compare a raw folder with what the publisher ships, and say what to type next."""
    from dataclasses import asdict

    from qoq_data.cli.printing import print_json, print_line
    from qoq_data.corpus.doctor import examine, is_healthy
    from qoq_data.corpus.roots import raw_address
    from qoq_data.errors import LayoutError
    from qoq_data.formats.storage import Store
    from qoq_data.sources import get_source

    source = get_source(name)
    findings = examine(source, Store(raw_address(name, raw, alone=True)), checksums)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            where = f" {finding.where}:" if finding.where else ""
            print_line(f"{finding.severity:8}{where} {finding.what}")
            if finding.what_to_type:
                print_line(f"         {finding.what_to_type}")
    if not is_healthy(findings):
        raise LayoutError(f"The folder is not yet {source.spec.title} as its publisher ships it.")


def new_source(
    name: Annotated[str, typer.Argument(help="The name of the new source: lower case, dashes.")],
    folder: Annotated[Path | None, typer.Option(help="Root of your own package; default: this repository.")] = None,
    package: Annotated[str | None, typer.Option(help="Import name of your own package.")] = None,
) -> None:
    """Write a source file to fill in, which already passes the contract on its own synthetic tree."""
    from qoq_data.cli.printing import print_line
    from qoq_data.contract.template import entry_point_lines
    from qoq_data.contract.template import new_source as write

    lines = entry_point_lines(name, package) if package else ""
    for path in write(name, folder or Path.cwd(), package):
        print_line(str(path))
    if lines:
        print_line(f"\nPut into your pyproject.toml:\n\n{lines}")
