"""One item's files into the media of its row: opens what the plan names, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from qoq_data.corpus.references import GivenBox, MediaReference
from qoq_data.corpus.render_images import render_image
from qoq_data.corpus.render_signals import draw_signal, render_signal
from qoq_data.formats.image import encode_image
from qoq_data.formats.storage import Store
from qoq_data.formats.wfdb import Empty, empty_int16
from qoq_data.recipe import Recipe
from qoq_data.record import Media, View
from qoq_data.source import MASK_KINDS, PICTURE_KINDS


def render_media(
    tree: Store,
    references: Sequence[MediaReference],
    recipe: Recipe,
    empty: Empty = empty_int16,
    boxes: Sequence[GivenBox] = (),
) -> Media:
    """The media of one item; raises ``RecordError`` when any of its files cannot be right.

    ``empty`` gives the arrays that signals are decoded into; ``boxes`` are those of the publisher's tables.
    """
    media = Media()
    for position, reference in enumerate(references):
        if reference.kind == "wfdb":
            media = _with_signal(media, tree, reference, recipe, empty)
        elif reference.kind in PICTURE_KINDS:
            masks = tuple(takewhile(lambda one: one.kind in MASK_KINDS, references[position + 1 :]))
            place = sum(one.kind in PICTURE_KINDS for one in references[:position])
            media = _with_image(media, tree, reference, masks, [box for box in boxes if box.image == place], recipe)
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
    media: Media,
    tree: Store,
    reference: MediaReference,
    masks: Sequence[MediaReference],
    boxes: Sequence[GivenBox],
    recipe: Recipe,
) -> Media:
    rendered = render_image(tree, reference, masks, len(media.images), recipe, boxes)
    return replace(
        media,
        images=(*media.images, rendered.data),
        views=(*media.views, rendered.view),
        boxes=media.boxes + rendered.boxes,
        masks=media.masks + ((rendered.mask,) if rendered.mask is not None else ()),
        quality=media.quality + rendered.quality,
        provenance=media.provenance + rendered.provenance,
    )
