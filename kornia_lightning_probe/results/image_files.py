"""Each image's part in a result, in a file of its own beside the JSON: one array a kind, which NumPy reads too."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.plain import Part
from kornia_lightning_probe.results.tables import ImageScores, WorstImages

_SUFFIX = ".images.npz"
_FAULTS = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def images_path(path: Path) -> Path:
    """Where the images of a JSON file are.

    Example:
        >>> images_path(Path("probe/fit-epoch=3-step=40.json")).name
        'fit-epoch=3-step=40.images.npz'
    """
    return path.with_name(path.name.removesuffix(".json") + _SUFFIX)


def write_images(numbers: ProbeNumbers, path: Path) -> None:
    """Write each image's part beside a JSON file, whole or not at all; without any, remove what was there.

    Args:
        numbers: the result that the JSON file holds.
        path: of the JSON file.

    Raises:
        OSError: where nothing can be written.
    """
    target = images_path(path)
    images = numbers.images
    if images is None:
        target.unlink(missing_ok=True)
        return
    arrays = {"moved": images.moved.numpy(), "apart": images.apart.numpy(), "layers": np.array(images.layers)}
    if images.labels is not None:
        arrays["labels"] = images.labels.numpy()
    if images.worst is not None:
        arrays |= _worst_arrays(images.worst)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, of=np.array(_of(numbers)), **arrays)  # type: ignore[arg-type] # arrays by name
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def with_images(numbers: ProbeNumbers, path: Path) -> ProbeNumbers:
    """A result from a JSON file with each image's part, where the file beside it is of this very result.

    A file that can't be read, or is of another result, is a warning and left alone.
    """
    target = images_path(path)
    if not target.exists():
        return numbers
    try:
        numbers.images = _read(target, of=_of(numbers), num_views=len(numbers.views))
    except _FAULTS as error:
        warnings.warn(
            f"{target} is left out, so that worst_images() and by_label() have nothing to show: {error}", stacklevel=3
        )
    return numbers


@dataclass(frozen=True)
class ImagesInFile:
    """Each image's part in a result, which is read from its file when it is asked for.

    Args:
        path: of the result's JSON file, which the images are beside.
        of: what tells the result from others, as a hash: it may hold fewer digits by then than what was written.
        num_views: how many views the result has.
    """

    path: Path
    of: str
    num_views: int

    @classmethod
    def of_result(cls, numbers: ProbeNumbers, path: Path) -> ImagesInFile:
        """Where the images of a result are that has just been written to a JSON file."""
        return cls(Path(path).absolute(), _hash(_of(numbers)), len(numbers.views))

    def __str__(self) -> str:
        """The name of the images' file."""
        return str(images_path(self.path))

    def state(self) -> dict[str, Any]:
        """Plain data, which a checkpoint loads as weights only."""
        return {"path": str(self.path), "of": self.of, "num_views": self.num_views}

    @classmethod
    def from_state(cls, state: Any, *, near: object = None) -> ImagesInFile:
        """What :meth:`state` has written.

        Args:
            state: that.
            near: a checkpoint. A run's folder that was moved since holds it in itself or in a folder of its own.

        Raises:
            ValueError: where something in it is missing or malformed, with its place.
        """
        part = Part(state, "images")
        path = Path(part.entry("path").read(str))
        found = cls(path, part.entry("of").read(str), part.entry("num_views").read(int))
        if near is None or images_path(path).exists():
            return found
        moved = [folder / path.parent.name / path.name for folder in Path(str(near)).parents[:2]]
        return replace(found, path=next((place for place in moved if images_path(place).exists()), path))

    def __call__(self) -> ImageScores | None:
        """The images; None where they are not there any more, or there are those of another result."""
        try:
            return _read(images_path(self.path), of=self.of, num_views=self.num_views, told=_hash)
        except _FAULTS:
            return None


def _read(target: Path, *, of: str, num_views: int, told: Callable[[str], str] = str) -> ImageScores:
    """The images in a file.

    Args:
        target: the file.
        of: what tells the result that they are to be of.
        num_views: how many views that has.
        told: what the file says of its result, in the form of `of`.
    """
    with target.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if told(str(arrays["of"])) != of:
            raise ValueError("it is of another result than the JSON file")
        labels = torch.from_numpy(arrays["labels"]).long() if "labels" in arrays else None
        moved, apart = (torch.from_numpy(arrays[name]).float() for name in ("moved", "apart"))
        layers = tuple(map(str, arrays["layers"].tolist()))
        worst = _worst_of(arrays)
    if moved.ndim != 3 or apart.ndim != 3 or len(moved) != num_views:
        raise ValueError(f"its arrays have the shapes {tuple(moved.shape)} and {tuple(apart.shape)}")
    _require_place(worst, layers, num_views=len(moved), num_images=moved.shape[2])
    return ImageScores(layers, moved, apart, labels, worst)


def _worst_arrays(worst: WorstImages) -> dict[str, np.ndarray[Any, Any]]:
    """The pictures of the images that moved furthest, as arrays by name."""
    return {
        "worst_at": np.array(json.dumps([worst.layer, worst.view])),
        "worst_places": worst.places.numpy(),
        "worst_clean": worst.clean.numpy(),
        "worst_augmented": worst.augmented.numpy(),
    }


def _worst_of(arrays: Any) -> WorstImages | None:
    """What :func:`_worst_arrays` has given; None in a file of an earlier version."""
    if "worst_at" not in arrays:
        return None
    layer, view = json.loads(str(arrays["worst_at"]))
    tensors = [torch.from_numpy(arrays[f"worst_{name}"]) for name in ("places", "clean", "augmented")]
    return WorstImages(layer, view, *tensors)


def _require_place(worst: WorstImages | None, layers: Sequence[str], *, num_views: int, num_images: int) -> None:
    """Refuse pictures of what the tables don't hold."""
    if worst is None:
        return
    is_held = worst.layer in layers and isinstance(worst.view, int) and 0 <= worst.view < num_views
    places = worst.places.tolist()
    if not is_held or any(not 0 <= place < num_images for place in places):
        raise ValueError(f"its pictures are of images {places} at {worst.layer!r}, which its tables do not hold")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _of(numbers: ProbeNumbers) -> str:
    """What tells a result from others, as a text."""
    views = [[view.augmentation, view.level, view.severity] for view in numbers.views]
    # Two models that are measured without a Trainer differ in their values only.
    values = hashlib.sha256(b"".join(table.value.numpy().tobytes() for table in numbers.tables.values())).hexdigest()
    run = [numbers.metadata.content_hash, numbers.epoch, numbers.step, numbers.layers, views, values]
    return json.dumps(run)
