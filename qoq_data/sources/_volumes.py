"""What sources of labelled volumes share: recipe keys, media of a slice, and the slices that become items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from qoq_data.clinical.volume_boxes import volume_names_text
from qoq_data.clinical.volume_slices import Reach, SlicePolicy, choose_slices
from qoq_data.clinical.volumes import Plane
from qoq_data.clinical.windowing import DisplayWindow
from qoq_data.source import SourceOptions


class VolumeOptions(SourceOptions):
    """Recipe keys of a source of volumes; a source says its own defaults."""

    slices: SlicePolicy = Field("largest", description="of each instance, every n-th or all of the annotated range")
    every: int = Field(8, ge=1, description="the n of every n-th slice")
    slice_seed: int = Field(0, description="draws where every n-th slice begins")
    planes: tuple[Plane, ...] = Field(("axial",), min_length=1, description="in which slices are taken")
    minimum_volume_mm3: float = Field(0, ge=0, allow_inf_nan=False, description="smaller instances count as nothing")
    display: DisplayWindow = Field("soft_tissue", description="grey window of the CT")


@dataclass(frozen=True, slots=True)
class SlicePart:
    """One slice to be asked about, and the label values that stand on it."""

    plane: Plane
    index: int
    values: frozenset[int]

    @property
    def name(self) -> str:
        return f"{self.plane}-{self.index}"

    def medium(self, volume: Mapping[str, Any], view: str, options: VolumeOptions) -> dict[str, Any]:
        """The medium of a whole volume as that of this slice."""
        cut = {"plane": self.plane, "index": self.index}
        return {**volume, "part": f"{self.plane} {view}", "slice": cut, "display": options.display}


def volume_media(image: str, labels: str, names: Mapping[int, str], options: VolumeOptions) -> list[dict[str, str]]:
    """Media of a whole volume and its label volume, whose values have these names."""
    part = volume_names_text(names, options.minimum_volume_mm3)
    return [
        {"role": "image", "kind": "volume", "path": image, "part": ""},
        {"role": "mask", "kind": "volume_labels", "path": labels, "part": part},
    ]


def slice_parts(item: str, instances: Sequence[Mapping[str, Any]], options: VolumeOptions) -> list[SlicePart]:
    """The slices of a volume that ``options`` choose, plane by plane; ``instances`` are ``volume_regions`` facts.

    Instances under the smallest volume count as nothing: they choose no slice and stand on none.
    """
    counted = [one for one in instances if one["volume_mm3"] >= options.minimum_volume_mm3]
    parts = []
    for plane in dict.fromkeys(options.planes):
        reaches = [Reach(**one[plane]) for one in counted]
        key = f"{options.slice_seed}\x1f{item}\x1f{plane}"
        for index in choose_slices(reaches, options.slices, options.every, key):
            parts.append(SlicePart(plane, index, frozenset(_on_slice(counted, plane, index))))
    return parts


def _on_slice(instances: Sequence[Mapping[str, Any]], plane: Plane, index: int) -> Iterable[int]:
    return (one["value"] for one in instances if one[plane]["first"] <= index <= one[plane]["last"])
