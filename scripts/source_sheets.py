"""One small picture of rows for each source, from its synthetic tree, into ``docs/sources``: ``make sheets``.

A sheet is what ``qoq-data view`` draws, scaled down and in 128 colours, so that all of them weigh some megabytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from qoq_data.sources import registry

OUT = Path(__file__).parent.parent / "docs" / "sources"
WIDTH_PX = 820
ROWS = 4
COLOURS = 128


def main(names: list[str]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names or list(registry()):
        with tempfile.TemporaryDirectory(prefix="qoq-sheet-") as folder:
            corpus, sheet = f"{folder}/corpus", f"{folder}/sheet.png"
            run("build", name, "--synthetic", "--out", corpus)
            run("view", corpus, "--per-source", str(ROWS), "--png", sheet)
            with Image.open(sheet) as opened:
                picture = opened.convert("RGB")
        size = WIDTH_PX, round(picture.height * WIDTH_PX / picture.width)
        picture.resize(size, Image.Resampling.LANCZOS).quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(
            OUT / f"{name}.png", optimize=True
        )


def run(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("qoq-data")), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1:])
