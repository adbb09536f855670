"""The patch embedding of a vision tower as the matrix product that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from typing import Any


class PatchProduct(nn.Conv3d):
    """A convolution whose kernel is as large as its input, computed as one matrix product.

    The parameters keep their names and shapes. A 3-D convolution over thousands of inputs of kernel size is several
    times slower than the product on a CPU, and slower on GPUs too.
    """

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [n, channels, frames, height, width] of exactly the kernel's size to [n, features, 1, 1, 1]."""
        if patches.shape[1:] != self.weight.shape[1:]:
            raise ValueError(f"patches of shape {tuple(patches.shape[1:])} do not fit {tuple(self.weight.shape[1:])}")
        product = functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
        return product[:, :, None, None, None]


def use_patch_products(model: Any) -> None:
    """Let the vision tower of a Qwen-VL model embed its patches by a product; weights and results stay the same."""
    convolution = model.model.visual.patch_embed.proj
    if type(convolution) is nn.Conv3d and convolution.kernel_size == convolution.stride:
        convolution.__class__ = PatchProduct
