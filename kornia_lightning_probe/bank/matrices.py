"""Where an augmentation moves a pixel: the matrix of a whole chain of Kornia augmentations."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple

import torch
from kornia.augmentation import (
    AugmentationSequential,
    ImageSequential,
    IntensityAugmentationBase2D,
    RigidAffineAugmentationBase2D,
)
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_CHAINS = (nn.Sequential, ImageSequential, AugmentationSequential)


class Way(NamedTuple):
    """Where pixels were on the way through a chain, and the frames that they may have left.

    Attributes:
        through: the matrices after each step but the last, (B, K, 3, 3) float32, on the CPU.
        frames: height and width of the images after each of these steps; a crop makes them smaller, a pad larger.
    """

    through: Tensor
    frames: tuple[tuple[int, int], ...]


class MatrixRecorder:
    """Notes the matrix of every step of a chain while it runs, and multiplies them.

    `AugmentationSequential.transform_matrix` skips steps without a matrix (elastic, thin-plate, fisheye) and plain
    `ImageSequential` children without a word. Here a chain has a matrix only if each of its steps has one, and the
    steps count in the order in which they ran, nested, repeated or randomly chosen as they may be.

    Args:
        transform: an augmentation, or a chain of them (`nn.Sequential`, `ImageSequential`, `AugmentationSequential`).

    Example:
        >>> import kornia.augmentation as K
        >>> shift = K.RandomTranslate((0.25, 0.25), p=1.0)
        >>> with MatrixRecorder(nn.Sequential(shift, K.RandomHorizontalFlip(p=1.0))) as recorder:
        ...     _ = recorder.transform(torch.rand(1, 1, 8, 8))
        >>> recorder.matrices(1)[0]  # x is moved by a quarter of 8 pixels, then mirrored: 7 - (x + 2)
        tensor([[[-1.,  0.,  5.],
                 [ 0.,  1.,  0.],
                 [ 0.,  0.,  1.]]])
    """

    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self._steps = _steps(transform)
        self._handles: list[RemovableHandle] = []
        self._matrices: list[Tensor] = []
        self._frames: list[tuple[int, int]] = []

    def __enter__(self) -> MatrixRecorder:
        self._matrices.clear()
        self._frames.clear()
        for step in self._steps or ():
            if isinstance(step, RigidAffineAugmentationBase2D) and not isinstance(step, IntensityAugmentationBase2D):
                self._handles.append(step.register_forward_hook(self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def matrices(self, num_images: int) -> tuple[Tensor | None, Way | None]:
        """Give the matrix of what ran inside the `with`, and those on the way to it.

        Args:
            num_images: B.

        Returns:
            The matrix, (B, 3, 3) float32: takes homogeneous pixel coordinates (x, y, 1), integers at pixel centres,
            from where a pixel was to where it is now; the identity for a purely photometric chain. None where a step
            has no matrix. And the way there, on which pixels may have left the frame; None where fewer than two steps
            moved pixels, or a step has no matrix.
        """
        products = self._products(num_images)
        if products is None:
            return None, None
        if len(products) == 1:
            return products[0], None
        return products[-1], Way(torch.stack(products[:-1], dim=1), tuple(self._frames[:-1]))

    def _products(self, num_images: int) -> list[Tensor] | None:
        """The product after each step, or the identity where there is none; on the CPU."""
        is_known = self._steps is not None
        if not is_known or any(len(matrix) not in (1, num_images) for matrix in self._matrices):
            return None
        first, *others = self._matrices or [torch.eye(3).unsqueeze(0)]
        if first.shape[0] != num_images:
            first = first.repeat(num_images, 1, 1)
        products = [first]
        for matrix in others:
            products.append(matrix @ products[-1])
        return products

    def _note(self, module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # transform_matrix is a property that answers for the last call, so it is read now and copied.
        matrix: Tensor = module.transform_matrix  # type: ignore[assignment] # nn.Module types it Tensor | Module
        self._matrices.append(matrix.detach().to("cpu", torch.float32, copy=True))
        self._frames.append((output.shape[-2], output.shape[-1]))


def is_kornia_chain(transform: Any) -> bool:
    """Whether an augmentation is made of Kornia's matrix and intensity classes only, which keep no state that matters.

    Args:
        transform: any augmentation.
    """
    return _steps(transform) is not None


def _steps(transform: Any) -> list[nn.Module] | None:
    if type(transform) in _CHAINS:
        nested: list[nn.Module] = []
        for child in transform.children():
            steps = _steps(child)
            if steps is None:
                return None
            nested += steps
        return nested
    if isinstance(transform, RigidAffineAugmentationBase2D | nn.Identity):
        return [transform]
    return None
