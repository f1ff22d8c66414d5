"""A place where activations are compared: the pixels, a layer, a part of it, or the model's output."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from kornia_lightning_probe.activations.layout import Layout, layout_of
from kornia_lightning_probe.functional.grids import Size

#: The names of the pixels and of the prediction among the layers.
INPUT = "input"
OUTPUT = "output"


@dataclass(frozen=True)
class HeadSpace:
    """The directions of an embedding that a linear head reads.

    Args:
        basis: orthonormal columns, (C, r) float64.
        part: which part of a sequence the head reads, as in `Site.part`.
    """

    basis: Tensor = field(compare=False, repr=False)
    part: str = ""


@dataclass(frozen=True)
class Site:
    """A place where activations are compared.

    Args:
        name: the layer's dotted name, ``"input"`` or ``"output"``; of a part of it, with ``:cls`` or ``:patch`` behind.
        index: place in order of execution; 0 for the pixels.
        shape: shape of one image's activation, without the batch.
        kind: ``"input"``, ``"layer"`` or ``"output"``.
        is_embedding: whether this is the layer that the probe calls the embedding.
        representation: "activation", all of it; "pooled", the mean over its cells or tokens, of a sequence with a class
            token over each of its two parts; "mean", the mean over all tokens of such a sequence.
        source: the activation's shape where this is its pooled form.
        part: "cls" or "patch", of a sequence with a class token; "" for all of a layer.
        label_shape: the shape of one image's label, () for a class; None where images have no labels.
        image_size: height and width of the images, which tell grids of their shape; None takes square ones.
        depth: of volumes and video, the number of slices or frames.
        is_folded: whether slices or frames, or windows of them, were rows of the batch in the model.
        head: of the embedding, what a linear head reads of it; None where it is read in another way, or nobody knows.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    kind: Literal["input", "layer", "output"] = "layer"
    is_embedding: bool = False
    representation: Literal["activation", "pooled", "mean"] = "activation"
    source: tuple[int, ...] | None = None
    part: Literal["", "cls", "patch"] = ""
    label_shape: tuple[int, ...] | None = None
    image_size: Size | None = None
    depth: int | None = None
    is_folded: bool = False
    head: HeadSpace | None = None

    @cached_property
    def layout(self) -> Layout:
        """Which axes of the activation are its grid, and which its channels."""
        return layout_of(self.shape, image_size=self.image_size, depth=self.depth, is_folded=self.is_folded)

    @property
    def has_cells(self) -> bool:
        """Whether a layer's activation has cells or tokens that move along with the image."""
        shape = self.shape if self.source is None else self.source
        return self.kind == "layer" and len(shape) > 1
