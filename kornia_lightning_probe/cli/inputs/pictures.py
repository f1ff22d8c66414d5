"""Images from a folder, from a file of tensors or from a user's own dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, Subset

from kornia_lightning_probe.cli.files import natural
from kornia_lightning_probe.cli.inputs.named import is_name, named_object
from kornia_lightning_probe.cli.telling import CommandError, kind_of, reason_of

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_ARRAYS = (".npy", ".pt")
_CHANNELS = (1, 3)
_NO_READER = (
    "to read pictures, install Pillow (pip install pillow) or torchvision; .npy and .pt files need neither, "
    "such as images (N, C, H, W) in one file"
)


@dataclass(frozen=True)
class Wish:
    """How images are wanted.

    Args:
        size: height and width, or None to leave them.
        mean: of the normalisation that the model expects; None: no shift.
        std: likewise.
        most: at most so many.
        seed: chooses them.
    """

    size: tuple[int, int] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    most: int
    seed: int


def read_images(text: str, wish: Wish) -> tuple[Any, Tensor | None]:
    """Read images, resized and normalised as a model expects them.

    Args:
        text: a folder, a .pt or .npy file, or MODULE:NAME of a dataset or loader, whose images are taken as they are.
        wish: how they are wanted.

    Returns:
        A (N, C, H, W) tensor, or a dataset; and labels where a file holds some.

    Raises:
        CommandError: where there is nothing to be read, or it doesn't fit.
    """
    path = Path(text)
    if not path.exists() and is_name(text):
        return _dataset(named_object(text, option="--images"), wish), None
    if not path.exists():
        raise CommandError(f"--images {text}: there is no such folder or file, and it is no MODULE:NAME of a dataset")
    labels: Tensor | None = None
    if path.is_dir():
        images = _folder(path, wish)
    else:
        images, labels = _file(path)
        rows = _chosen(len(images), wish)
        images = _resized(images[rows], wish)
        labels = None if labels is None else labels[rows]
    return _normalised(images, wish), labels


def _chosen(total: int, wish: Wish) -> list[int]:
    """The numbers of the images that are taken, in order."""
    generator = torch.Generator().manual_seed(wish.seed)
    return sorted(torch.randperm(total, generator=generator)[: wish.most].tolist())


def _dataset(found: Any, wish: Wish) -> Any:
    if not isinstance(found, Tensor | Dataset | DataLoader) and callable(found):
        found = found()
    if isinstance(found, DataLoader):
        return found
    if not (hasattr(found, "__getitem__") and hasattr(found, "__len__")):
        raise CommandError(
            f"--images: a dataset, a loader, or a function that makes one was expected, got {kind_of(found)}"
        )
    rows = _chosen(len(found), wish)
    return found[rows] if isinstance(found, Tensor) else Subset(found, rows)


def _folder(folder: Path, wish: Wish) -> Tensor:
    """The images of a folder and those in it, (N, C, H, W) in [0, 1]."""
    known = (*_PICTURES, *_ARRAYS)
    paths = sorted((path for path in folder.rglob("*") if path.suffix.lower() in known), key=natural)
    if not paths:
        raise CommandError(f"--images {folder}: no image in this folder or those in it; {', '.join(known)} are read")
    images = [_resized(_one(paths[row])[None], wish)[0] for row in _chosen(len(paths), wish)]
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise CommandError(
            f"--images {folder}: the images differ in shape, such as {shapes[0]} and {shapes[-1]}; --size 224 resizes "
            "all of them"
        )
    return torch.stack(images)


def _one(path: Path) -> Tensor:
    """One image, (C, H, W) in [0, 1]."""
    if path.suffix.lower() in _ARRAYS:
        images, _ = _file(path)
        if len(images) != 1:
            raise CommandError(f"{path}: one image was expected in each file of a folder, got {len(images)}")
        return images[0]
    return _unit(_channels_first(_decoded(path)))


def _decoded(path: Path) -> Tensor:
    """The bytes of a picture in RGB, (H, W, 3)."""
    try:
        if find_spec("PIL") is not None:
            from PIL import Image

            with Image.open(path) as picture:
                return torch.from_numpy(np.array(picture.convert("RGB")))
        if find_spec("torchvision") is not None:
            from torchvision.io import ImageReadMode, read_image

            decoded: Tensor = read_image(str(path), ImageReadMode.RGB)
            return decoded.permute(1, 2, 0)
    except Exception as error:
        raise CommandError(f"{path} can't be read as a picture: {reason_of(error)}") from error
    raise CommandError(_NO_READER)


def _file(path: Path) -> tuple[Tensor, Tensor | None]:
    """The images (N, C, H, W) in [0, 1] of a .npy or .pt file, and labels where it holds some."""
    if path.suffix.lower() not in _ARRAYS:
        raise CommandError(f"--images {path}: a folder, a .pt or a .npy file was expected")
    try:
        if path.suffix.lower() == ".npy":
            content: Any = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CommandError(f"{path} can't be read: {reason_of(error)}") from error
    images, labels = _parts(content)
    if not isinstance(images, Tensor) or images.ndim not in (3, 4):
        what = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else kind_of(images)
        raise CommandError(f"{path}: images (N, C, H, W) were expected, got {what}")
    if images.ndim == 3:
        images = images[None]
    try:
        return _unit(_channels_first(images)), labels
    except CommandError as error:
        raise CommandError(f"{path}: {error}") from error


def _parts(content: Any) -> tuple[Any, Any]:
    """Images and labels of what a file holds."""
    if isinstance(content, Mapping):
        return content.get("images"), content.get("labels")
    if isinstance(content, tuple | list) and len(content) == 2:
        return content[0], content[1]
    return content, None


def _channels_first(images: Tensor) -> Tensor:
    if images.shape[-3] not in _CHANNELS and images.shape[-1] in _CHANNELS:
        return images.movedim(-1, -3)
    return images


def _unit(images: Tensor) -> Tensor:
    """Bytes as floats in [0, 1]; floats have to be that already."""
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise CommandError(f"bytes, or floats in [0, 1], were expected, got {images.dtype}")
    lowest, highest = (float(end) for end in images.aminmax())
    if not (lowest >= 0 and highest <= 1):
        raise CommandError(
            f"images in [0, 1] were expected, got {lowest:g} to {highest:g}; give them as they are before "
            "normalisation, with --mean and --std"
        )
    return images.float()


def _resized(images: Tensor, wish: Wish) -> Tensor:
    if wish.size is None or tuple(images.shape[-2:]) == wish.size:
        return images
    return interpolate(images, size=wish.size, mode="bilinear", antialias=True).clamp(0, 1)


def _normalised(images: Tensor, wish: Wish) -> Tensor:
    channels = images.shape[1]
    for option, numbers in (("--mean", wish.mean), ("--std", wish.std)):
        if numbers is not None and len(numbers) not in (1, channels):
            raise CommandError(f"{option} takes one number or {channels}, one for each channel, got {len(numbers)}")
    mean = torch.tensor(wish.mean or [0.0]).view(1, -1, 1, 1)
    std = torch.tensor(wish.std or [1.0]).view(1, -1, 1, 1)
    return (images - mean) / std
