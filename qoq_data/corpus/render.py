"""One item's files into the media of its row: opens what the plan names, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qoq_data.clinical.tiling import Window
from qoq_data.corpus.render_images import MaskFile, render_image
from qoq_data.corpus.render_signals import draw_signal, render_signal
from qoq_data.formats.image import encode_image
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb import Empty, empty_int16
from qoq_data.recipe import Recipe
from qoq_data.record import Media, View
from qoq_data.source import MediaKind


@dataclass(frozen=True, slots=True)
class MediaReference:
    """One entry of an item's ``media`` column; see ``qoq_data.source.MediaKind`` for what its part means."""

    role: str
    kind: MediaKind
    path: str
    part: str
    window: Window | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> MediaReference:
        corners: Any = entry.get("window")
        window = None
        if corners is not None and corners["x0"] is not None:
            window = (corners["x0"], corners["y0"], corners["x1"], corners["y1"])
        return cls(entry["role"], entry["kind"], entry["path"], entry["part"], window)


def render_media(
    tree: Store, references: Sequence[MediaReference], recipe: Recipe, empty: Empty = empty_int16
) -> Media:
    """The media of one item; raises ``RecordError`` when any of its files cannot be right.

    ``empty`` gives the arrays that signals are decoded into.
    """
    media = Media()
    for position, reference in enumerate(references):
        if reference.kind == "wfdb":
            media = _with_signal(media, tree, reference, recipe, empty)
        elif reference.kind == "image":
            masks = []
            for following in references[position + 1 :]:
                if following.kind not in ("mask", "label_map"):
                    break
                masks.append(MaskFile(following.path, following.part, label_map=following.kind == "label_map"))
            media = _with_image(media, tree, reference, masks, recipe)
    return media


def _with_signal(media: Media, tree: Store, reference: MediaReference, recipe: Recipe, empty: Empty) -> Media:
    rendered = render_signal(tree, reference.path, reference.role, recipe.signals, empty)
    media = replace(
        media,
        signals=(*media.signals, rendered.signal),
        quality=media.quality + rendered.quality,
        provenance=media.provenance + rendered.provenance,
    )
    if recipe.signals.paper is None:
        return media
    drawn, pixels_per_mm = draw_signal(rendered.signal, recipe.signals.paper)
    view = View(view="ECG paper", index=len(media.images), spacing_mm=(1 / pixels_per_mm,) * 2)
    return replace(media, images=(*media.images, encode_image(drawn, "PNG")), views=(*media.views, view))


def _with_image(
    media: Media, tree: Store, reference: MediaReference, masks: Sequence[MaskFile], recipe: Recipe
) -> Media:
    index = len(media.images)
    rendered = render_image(tree, reference.path, reference.role, masks, index, recipe, reference.window)
    return replace(
        media,
        images=(*media.images, rendered.data),
        views=(*media.views, View(view=reference.part, index=index)),
        boxes=media.boxes + rendered.boxes,
        masks=media.masks + ((rendered.mask,) if rendered.mask is not None else ()),
        quality=media.quality + rendered.quality,
        provenance=media.provenance + rendered.provenance,
    )
