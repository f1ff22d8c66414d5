"""What a batch holds: the model's inputs, the images among them and the labels. Knows no dataset and no block.

Model inputs are one tensor, or a dict or tuple of tensors with B in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.image_layout import IMAGE, VIDEO, VOLUME, ImageLayout
from kornia_lightning_probe.wording import listed, quoted

IMAGE_NAMES = ("image", "images", "pixel_values", "x", "input", "inputs")
LABEL_NAMES = ("label", "labels", "target", "targets", "y")

ToInputs = Callable[[Any], Any] | str | int
ImageKeys = str | int | Sequence[str | int]

_MOST_ENTRIES = 4  # that a description of a list shows
_TO_FLOAT = "convert them with images.float() / 255, or v2.ToDtype(torch.float32, scale=True) in the transform"


def describe(value: object) -> str:
    """Say in a few words what a batch or an entry of it is.

    Example:
        >>> describe({"image": torch.zeros(2, 3, 8, 8), "id": ["a", "b"]})
        "a dict of 'image': float32 (2, 3, 8, 8), 'id': a list of str, str"
    """
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        entries = [f"{key!r}: {describe(entry)}" for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        entries = [describe(entry) for entry in value[:_MOST_ENTRIES]]
        entries += ["..."] * (len(value) > _MOST_ENTRIES)
    else:
        return kind
    return f"a {kind} of {', '.join(entries) or 'nothing'}"


def find_inputs(batch: object, to_inputs: ToInputs | None = None) -> Any:
    """Find what the model is called with in a batch of a loader.

    A tensor is the input itself; of a tuple or list the first entry is; a dict is searched for "image", "images",
    "pixel_values", "x", "input", "inputs", in this order.

    Args:
        batch: what a collate_fn has returned.
        to_inputs: overrides the search: a function from the batch to the model's inputs, or a key or index of it.

    Returns:
        A tensor, or a dict or tuple of entries.

    Raises:
        ValueError: if there is no input to be found; the message names what the batch holds.

    Example:
        >>> find_inputs([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).shape
        torch.Size([2, 3, 8, 8])
    """
    inputs = _searched(batch) if to_inputs is None else _chosen(batch, to_inputs)
    if isinstance(inputs, Tensor | tuple | Mapping):
        return inputs
    raise ValueError(
        f"No image was found in the batch, which is {describe(batch)}; expected a tensor, a tuple whose first entry is "
        f"the model's input, or a dict with one of {listed(IMAGE_NAMES)}; pass to_inputs=, a key, an index or a "
        "function of the batch, for example to_inputs=lambda batch: batch['left']"
    )


def find_labels(batch: object, num_rows: int, *, layout: ImageLayout = IMAGE) -> Tensor | None:
    """Find one integer label, or one integer mask, per image in a batch.

    Args:
        batch: what a collate_fn has returned: the second entry of a tuple or list is looked at, or a dict's "label",
            "labels", "target", "targets" or "y".
        num_rows: B.
        layout: the axes of images.

    Returns:
        Integers of shape (B,) or (B, H, W), of volumes and video also (B, D, H, W) or (B, T, H, W), or None where there
        are none; an axis of one channel, as in (B, 1) and (B, 1, H, W), goes.

    Example:
        >>> find_labels((torch.zeros(2, 3, 8, 8), torch.tensor([4, 5])), 2)
        tensor([4, 5])
    """
    columns = [_without_column(targets, layout) for targets in _targets(batch)]
    return next((labels for labels in columns if _are_labels(labels, num_rows, layout)), None)


def find_binary_labels(batch: object, num_rows: int, *, layout: ImageLayout = IMAGE) -> Tensor | None:
    """Find labels or masks that are 0 and 1 as floats or booleans, as losses of one logit take them.

    Args:
        batch: what a collate_fn has returned, searched as by :func:`find_labels`.
        num_rows: B.
        layout: the axes of images.

    Returns:
        Integers as by :func:`find_labels`, or None where there are none.

    Example:
        >>> find_binary_labels((torch.zeros(2, 3, 8, 8), torch.tensor([[1.0], [0.0]])), 2)
        tensor([1, 0])
    """
    for targets in _targets(batch):
        if isinstance(targets, Tensor) and not targets.is_complex() and ((targets == 0) | (targets == 1)).all():
            labels = _without_column(targets.long(), layout)
            if _are_labels(labels, num_rows, layout):
                return labels  # type: ignore[no-any-return]  # found in anything
    return None


def describe_targets(batch: object) -> str:
    """Say what a batch holds in the place of labels, whether labels or not; an empty text where it holds nothing there.

    Example:
        >>> describe_targets((torch.zeros(2, 3, 8, 8), torch.zeros(2, 4)))
        'float32 (2, 4)'
    """
    targets = _targets(batch)
    return describe(targets[0]) if targets else ""


def find_image_keys(
    inputs: object, image_keys: ImageKeys | None = None, *, layout: ImageLayout = IMAGE
) -> tuple[str | int, ...]:
    """Name the entries of the model's inputs that are images: those that get augmented.

    Args:
        inputs: a tensor, or a dict or tuple.
        image_keys: keys or indices; None takes the only float entry with as many dimensions as images have.
        layout: the axes of images.

    Returns:
        The keys or indices; an empty tuple where the inputs are one tensor.

    Raises:
        ValueError: if an entry is missing or no float image, or without `image_keys` if none or several could be meant.

    Example:
        >>> find_image_keys({"image": torch.zeros(2, 3, 8, 8), "age": torch.zeros(2)})
        ('image',)
    """
    if isinstance(inputs, Tensor):
        if image_keys is not None:
            raise ValueError(
                f"image_keys={image_keys!r} names entries, but the model's input is one tensor: leave it out"
            )
        _check_image(inputs, "The images", layout)
        return ()
    entries = _entries(inputs)
    if image_keys is None:
        return (_only_image(entries, inputs, layout),)
    keys = (image_keys,) if isinstance(image_keys, str | int) else tuple(image_keys)
    if not keys or any(key not in entries for key in keys):
        raise ValueError(f"image_keys={image_keys!r}, but the model's inputs are {describe(inputs)}")
    for key in keys:
        _check_image(entries[key], f"Entry {key!r}", layout)
    return keys


def _chosen(batch: object, to_inputs: ToInputs) -> object:
    inputs = to_inputs(batch) if callable(to_inputs) else _look_up(batch, to_inputs)
    return tuple(inputs) if isinstance(inputs, list) else inputs


def _look_up(batch: Any, key: str | int) -> object:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"to_inputs={key!r} is not in the batch, which is {describe(batch)}") from error


def _searched(batch: object) -> object:
    if isinstance(batch, Mapping):
        found = [batch.get(name) for name in IMAGE_NAMES]
        return next((entry for entry in found if isinstance(entry, Tensor)), None)
    if isinstance(batch, Tensor):
        return batch
    if not isinstance(batch, list | tuple) or not batch:
        return None
    first = batch[0]
    if isinstance(first, list | tuple):
        raise ValueError(
            f"The batch's first entry is a list of {len(first)} views: {describe(first)}; choose one with "
            "to_inputs=lambda batch: batch[0][0], or call the model with all: to_inputs=lambda batch: tuple(batch[0])"
        )
    return first


def _targets(batch: object) -> list[Any]:
    if isinstance(batch, Mapping):
        return [batch[name] for name in LABEL_NAMES if name in batch]
    if isinstance(batch, list | tuple):
        return list(batch[1:2])
    return []


def _without_column(targets: Any, layout: ImageLayout) -> Any:
    """Targets without an axis of one channel, where they have one."""
    if not isinstance(targets, Tensor):
        return targets
    if targets.ndim == 2 and targets.shape[1] == 1:
        return targets.squeeze(1)
    if targets.ndim == layout.num_axes and layout.channels(targets) == 1:
        return targets.squeeze(layout.channel_axis)
    return targets


def _are_labels(labels: Any, num_rows: int, layout: ImageLayout) -> bool:
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool:
        return False
    integers = not labels.is_floating_point() and not labels.is_complex()
    masks = layout.num_axes - 1
    return integers and labels.ndim in (1, 3, masks) and len(labels) == num_rows


def _entries(inputs: object) -> dict[Any, object]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, list | tuple):
        return dict(enumerate(inputs))
    return {}


def _only_image(entries: dict[Any, object], inputs: object, layout: ImageLayout) -> str | int:
    tensors = {key: entry for key, entry in entries.items() if isinstance(entry, Tensor)}
    candidates = {key: entry for key, entry in tensors.items() if entry.ndim == layout.num_axes}
    images: list[str | int] = [key for key, entry in candidates.items() if entry.is_floating_point()]
    if len(images) == 1:
        return images[0]
    if images:
        raise ValueError(
            f"Several entries could be the images: {quoted(images)}; say which are augmented with image_keys="
        )
    for key, entry in candidates.items():
        _check_image(entry, f"Entry {key!r}", layout)
    others = [_other_layout(entry, layout) for entry in tensors.values()]
    hint = next((f"; {other}" for other in others if other), "")
    raise ValueError(
        f"No entry is a float tensor of shape {layout.shape}: the model's inputs are {describe(inputs)}; pass "
        f"to_inputs= or image_keys={hint}"
    )


def _check_image(image: object, what: str, layout: ImageLayout) -> None:
    if not isinstance(image, Tensor) or image.ndim != layout.num_axes:
        advice = _other_layout(image, layout) or (
            f"a missing channel is added by to_inputs=lambda batch: batch[0].unsqueeze({layout.channel_axis})"
        )
        raise ValueError(
            f"{what}: {describe(image)} came, expected floats of shape {layout.shape}; if another entry of the batch "
            f"is meant, pass to_inputs=; {advice}"
        )
    if not image.is_floating_point():
        raise ValueError(f"{what}: {describe(image)} came, expected floats: {_TO_FLOAT}")


def _other_layout(image: object, layout: ImageLayout) -> str:
    """What to say where images lie in another way than the bank says."""
    if not isinstance(image, Tensor) or not image.is_floating_point():
        return ""
    if layout is IMAGE and image.ndim == VOLUME.num_axes:
        kinds = [f"layout={kind.name!r} takes {kind.shape}" for kind in (VOLUME, VIDEO)]
        return f"an AugmentationBank with {' and with '.join(kinds)}"
    if layout is not IMAGE and image.ndim == IMAGE.num_axes:
        return f"an AugmentationBank without layout={layout.name!r} takes {IMAGE.shape}"
    return ""
