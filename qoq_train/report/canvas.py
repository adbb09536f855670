"""The look of all pictures, their axes, and a picture as a part of a page."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from qoq_data.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE: Final = "#0072B2"
SKY: Final = "#9CCBEA"
ORANGE: Final = "#D55E00"
PHASES: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
INK: Final = "#222222"
GREY: Final = "#888888"
MOST_LETTERS: Final = 32
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qoq",
    "text.parse_math": False,  # a name from a file is never a formula
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def canvas_of(width_in: float, height_in: float) -> Iterator[tuple[Figure, Callable[[str], bytes]]]:
    """A canvas in our style, and what turns it into bytes."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train", "Drawing a run") from error

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the viewer's font is asked, not ours
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained")

        def rendered(format_: str) -> bytes:
            target = BytesIO()
            metadata = {"Date": None, "Creator": None} if format_ == "svg" else None
            canvas.savefig(target, format=format_, metadata=metadata, dpi=120)
            return target.getvalue()

        yield canvas, rendered


def spoken(name: str) -> str:
    """A name as a person says it, cut where it would push the picture aside."""
    shown = name.replace("_", " ")
    return shown if len(shown) <= MOST_LETTERS else f"{shown[: MOST_LETTERS - 1]}…"


def powers_axis(axis: Axes, values: Sequence[float]) -> None:
    """Powers of ten in letters; over less than three of them 2 and 5 times each as well."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    exponents = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def text(value: float, _: object) -> str:
        power = math.floor(math.log10(value) + 1e-9)
        lead = round(value / 10.0**power)
        return ("" if lead == 1 else f"{lead}·") + "10" + str(power).translate(exponents)

    narrow = max(values) / min(values) < 1e3
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(text))
    axis.yaxis.set_minor_formatter(NullFormatter())


def steps_axis(axis: Axes, steps: Sequence[int]) -> None:
    """Whole steps, from the first that was drawn to the last."""
    from matplotlib.ticker import MaxNLocator

    first, last = steps[0], steps[-1]
    room = max(0.5, (last - first) * 0.01)
    axis.set_xlim(first - room, last + room)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def inline(svg: bytes, name: str, title: str) -> str:
    """The SVG as a part of a page: without its prolog, its ids told apart from other pictures' by ``name``."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<[^<>]*?\sid=")', rf"\g<1>{name}-", text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
