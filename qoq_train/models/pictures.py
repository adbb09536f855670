"""What a picture becomes in a Qwen-VL prompt: the size at which the processor keeps it, and its number of tokens.

Trainer and engine each run a processor of their own. They agree because a picture is brought here, once, to a size
that both leave as it is; from then on its grid and its tokens follow from that size alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from qoq_data.errors import UsageError
from qoq_train.coordinates import smart_resize

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS: Final = 64  # where the short side is held at one token, each round only takes the root of what is too long


@dataclass(frozen=True, slots=True)
class PictureRule:
    """How a model cuts pictures into tokens: a token stands for ``merge_size`` × ``merge_size`` patches.

    ``patch_size_px`` and the limits of width × height, ``min_pixels`` and ``max_pixels``, are those of the model's
    processor; ``image_token_id`` is the token that stands for a picture in a prompt.
    """

    image_token_id: int
    patch_size_px: int
    merge_size: int
    min_pixels: int
    max_pixels: int

    @classmethod
    def of_processor(cls, image_processor: Any, image_token_id: int) -> PictureRule:
        """The rule that a transformers image processor of the Qwen-VL kind follows."""
        size = image_processor.size
        return cls(
            image_token_id,
            int(image_processor.patch_size),
            int(image_processor.merge_size),
            int(size["shortest_edge"]),
            int(size["longest_edge"]),
        )

    @property
    def factor_px(self) -> int:
        """Side of the square that one token stands for."""
        return self.patch_size_px * self.merge_size

    def fitted_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) at which the processor keeps a picture of ``size`` once it is there.

        The processor's own rule is applied until it changes nothing more: where a thin picture's short side was
        raised to one token, one application is not enough.

        Raises:
            UsageError: the picture, or what the rule makes of it, is too thin for the processor.
        """
        fitted = size
        try:
            for _ in range(_ROUNDS):
                before, fitted = fitted, self._resized(fitted)
                if before == fitted:
                    return fitted
        except ValueError as error:
            raise UsageError(
                f"a picture of {size[0]} × {size[1]} pixels cannot be shown to the model: {error}"
            ) from error
        raise UsageError(
            f"a picture of {size[0]} × {size[1]} pixels has no size that the processor keeps between "
            f"{self.min_pixels} and {self.max_pixels} pixels; widen the limits or crop the picture"
        )

    def fit(self, picture: Image.Image) -> Image.Image:
        """The picture as RGB at its fitted size, by bicubic resampling; a picture that fits comes back unresized.

        Raises:
            UsageError: pixels that are not 8-bit grey or colour, or a picture that is too thin.
        """
        if picture.mode not in ("L", "RGB"):
            raise UsageError(f"a picture has pixels of mode {picture.mode}; the corpus stores L and RGB")
        colour = picture if picture.mode == "RGB" else picture.convert("RGB")
        fitted = self.fitted_size(picture.size)
        return colour if fitted == picture.size else colour.resize(fitted, Image.Resampling.BICUBIC)

    def token_count(self, size: tuple[int, int]) -> int:
        """How many tokens a picture of a fitted (width, height) is.

        Raises:
            ValueError: the size is not a fitted one, so that a processor would resize it.
        """
        if self._resized(size) != size:
            raise ValueError(f"a picture of {size[0]} × {size[1]} pixels is not at its fitted size; pass it to fit")
        return (size[0] // self.factor_px) * (size[1] // self.factor_px)

    def expand(self, token_ids: Sequence[int], sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """The prompt's ids with each picture's one image token repeated to its number of tokens.

        Raises:
            ValueError: the prompt has not exactly one image token for each picture.
        """
        places = sum(token == self.image_token_id for token in token_ids)
        if places != len(sizes):
            raise ValueError(
                f"the prompt has {places} image token(s) for {len(sizes)} picture(s); it needs one a picture, "
                "not yet repeated"
            )
        counts = iter([self.token_count(size) for size in sizes])
        expanded: list[int] = []
        for token in token_ids:
            expanded += [token] * next(counts) if token == self.image_token_id else [token]
        return tuple(expanded)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        return smart_resize(size, factor=self.factor_px, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
