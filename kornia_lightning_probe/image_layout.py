"""What the axes of a batch of images are: plain images, volumes or video. It is said, never guessed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageLayout:
    """The axes of a batch of images.

    Args:
        name: "image", "volume" or "video".
        axes: their names.
        channel_axis: which of them the channels are.
        depth_axis: which holds slices or frames; None where there are none.

    Example:
        >>> VIDEO.shape, VIDEO.num_axes, VIDEO.grid_axes
        ('(B, T, C, H, W)', 5, (1, 3, 4))
    """

    name: str
    axes: tuple[str, ...]
    channel_axis: int
    depth_axis: int | None = None

    @property
    def num_axes(self) -> int:
        """How many axes a batch has."""
        return len(self.axes)

    @property
    def shape(self) -> str:
        """The shape of a batch, as messages write it."""
        return f"({', '.join(self.axes)})"

    @property
    def grid_axes(self) -> tuple[int, ...]:
        """The axes that are neither images nor channels."""
        return tuple(axis for axis in range(1, self.num_axes) if axis != self.channel_axis)

    @property
    def mask_shape(self) -> str:
        """The shape of one image's mask, as messages write it."""
        return ", ".join(self.axes[axis] for axis in self.grid_axes)

    def grid(self, images: Tensor) -> tuple[int, ...]:
        """The sides of images without their channels, (H, W), (D, H, W) or (T, H, W).

        Example:
            >>> import torch
            >>> VIDEO.grid(torch.zeros(2, 5, 3, 8, 9))
            (5, 8, 9)
        """
        return tuple(images.shape[axis] for axis in self.grid_axes)

    def channels(self, images: Tensor) -> int:
        """The number of channels of a batch."""
        return images.shape[self.channel_axis]

    def depth(self, images: Tensor) -> int | None:
        """The number of slices or frames of each image of a batch; None of plain images."""
        if self.depth_axis is None:
            return None
        return images.shape[self.depth_axis]

    def flat(self, images: Tensor) -> Tensor:
        """A batch as pictures (B, C, H, W): of volumes the middle slice, of video the middle frame."""
        if self.depth_axis is None:
            return images
        return images.select(self.depth_axis, images.shape[self.depth_axis] // 2)


IMAGE = ImageLayout("image", ("B", "C", "H", "W"), 1)
VOLUME = ImageLayout("volume", ("B", "C", "D", "H", "W"), 1, 2)
VIDEO = ImageLayout("video", ("B", "T", "C", "H", "W"), 2, 1)

_BY_NAME = {layout.name: layout for layout in (IMAGE, VOLUME, VIDEO)}


def image_layout(name: str) -> ImageLayout:
    """Look a layout up by its name.

    Raises:
        ValueError: for any name but "image", "volume" and "video".
    """
    if not isinstance(name, str) or name not in _BY_NAME:
        known = [f"{layout.name!r} {layout.shape}" for layout in _BY_NAME.values()]
        raise ValueError(f"layout must be one of {', '.join(known)}; got {name!r}")
    return _BY_NAME[name]
