"""What a batch holds: the model's inputs, the images among them and the labels, and rows of all that.

Model inputs are one tensor, or a dict or tuple of tensors with B in front. This room knows no dataset and no block.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

IMAGE_NAMES = ("image", "images", "pixel_values", "x", "input", "inputs")
LABEL_NAMES = ("label", "labels", "target", "targets", "y")

ToInputs = Callable[[Any], Any] | str | int
ImageKeys = str | int | Sequence[str | int]

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
        return f"a {kind} of " + (", ".join(f"{key!r}: {describe(entry)}" for key, entry in value.items()) or "nothing")
    if isinstance(value, list | tuple):
        shown = [describe(entry) for entry in value[:4]] + ["..."] * (len(value) > 4)
        return f"a {kind} of " + (", ".join(shown) or "nothing")
    return kind


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
    if to_inputs is not None:
        inputs = to_inputs(batch) if callable(to_inputs) else _look_up(batch, to_inputs)
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    elif isinstance(batch, Mapping):
        inputs = next((batch[name] for name in IMAGE_NAMES if isinstance(batch.get(name), Tensor)), None)
    else:
        inputs = _first_entry(batch)
    if isinstance(inputs, Tensor | tuple | Mapping) and not isinstance(inputs, str):
        return inputs
    raise ValueError(
        f"No image was found in the batch, which is {describe(batch)}. Expected a tensor, a tuple whose first entry is "
        f"the model's input, or a dict with one of {', '.join(IMAGE_NAMES)}. Pass to_inputs=, a key, an index or a "
        "function of the batch, for example to_inputs=lambda batch: batch['left']."
    )


def _look_up(batch: Any, key: str | int) -> object:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"to_inputs={key!r} is not in the batch, which is {describe(batch)}.") from error


def _first_entry(batch: object) -> object:
    if not isinstance(batch, list | tuple) or not batch:
        return batch if isinstance(batch, Tensor) else None
    first = batch[0]
    if isinstance(first, list | tuple):
        raise ValueError(
            f"The batch's first entry is a list of {len(first)} views: {describe(first)}. Choose one with "
            "to_inputs=lambda batch: batch[0][0], or call the model with all: to_inputs=lambda batch: tuple(batch[0])."
        )
    return first


def find_labels(batch: object, num_rows: int) -> Tensor | None:
    """Find one integer label, or one integer mask, per image in a batch.

    Args:
        batch: what a collate_fn has returned: the second entry of a tuple or list is looked at, or a dict's "label",
            "labels", "target", "targets" or "y".
        num_rows: B.

    Returns:
        Integers of shape (B,) or (B, H, W), or None where there are none.

    Example:
        >>> find_labels((torch.zeros(2, 3, 8, 8), torch.tensor([4, 5])), 2)
        tensor([4, 5])
    """
    if isinstance(batch, Mapping):
        found = [batch[name] for name in LABEL_NAMES if name in batch]
    else:
        found = list(batch[1:2]) if isinstance(batch, list | tuple) else []
    return next((labels for labels in found if _are_labels(labels, num_rows)), None)


def describe_targets(batch: object) -> str:
    """Say what a batch holds in the place of labels, whether labels or not; an empty text where it holds nothing there.

    Example:
        >>> describe_targets((torch.zeros(2, 3, 8, 8), torch.zeros(2, 4)))
        'float32 (2, 4)'
    """
    if isinstance(batch, Mapping):
        return next((describe(batch[name]) for name in LABEL_NAMES if name in batch), "")
    return describe(batch[1]) if isinstance(batch, list | tuple) and len(batch) > 1 else ""


def _are_labels(labels: object, num_rows: int) -> bool:
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool:
        return False
    integers = not labels.is_floating_point() and not labels.is_complex()
    return integers and labels.ndim in (1, 3) and len(labels) == num_rows


def find_image_keys(inputs: object, image_keys: ImageKeys | None = None) -> tuple[str | int, ...]:
    """Name the entries of the model's inputs that are images: those that get augmented.

    Args:
        inputs: a (B, C, H, W) tensor, or a dict or tuple.
        image_keys: keys or indices; None takes the only float entry with four dimensions.

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
                f"image_keys={image_keys!r} names entries, but the model's input is one tensor: leave it out."
            )
        _check_image(inputs, "The images")
        return ()
    entries = dict(_entries(inputs))
    if image_keys is None:
        return (_only_image(entries, inputs),)
    keys = (image_keys,) if isinstance(image_keys, str | int) else tuple(image_keys)
    if not keys or any(key not in entries for key in keys):
        raise ValueError(f"image_keys={image_keys!r}, but the model's inputs are {describe(inputs)}.")
    for key in keys:
        _check_image(entries[key], f"Entry {key!r}")
    return keys


def _entries(inputs: object) -> Iterator[tuple[Any, object]]:
    if isinstance(inputs, Mapping):
        yield from inputs.items()
    elif isinstance(inputs, list | tuple):
        yield from enumerate(inputs)


def _only_image(entries: dict[Any, object], inputs: object) -> str | int:
    four_dimensional = {key: entry for key, entry in entries.items() if isinstance(entry, Tensor) and entry.ndim == 4}
    images: list[str | int] = [key for key, entry in four_dimensional.items() if entry.is_floating_point()]
    if len(images) == 1:
        return images[0]
    if images:
        names = ", ".join(map(repr, images))
        raise ValueError(f"Several entries could be the images: {names}. Say which are augmented with image_keys=.")
    if four_dimensional:
        key, entry = next(iter(four_dimensional.items()))
        _check_image(entry, f"Entry {key!r}")
    raise ValueError(
        f"No entry is a float tensor of shape (B, C, H, W): the model's inputs are {describe(inputs)}. "
        "Pass to_inputs= or image_keys=."
    )


def _check_image(image: object, what: str) -> None:
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise ValueError(
            f"{what}: {describe(image)} came, expected floats of shape (B, C, H, W). If another entry of the batch is "
            "meant, pass to_inputs=; a missing channel is added by to_inputs=lambda batch: batch[0].unsqueeze(1)."
        )
    if not image.is_floating_point():
        raise ValueError(f"{what}: {describe(image)} came, expected floats: {_TO_FLOAT}.")


def map_tensors(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested dicts, lists and tuples; everything else passes through.

    Example:
        >>> map_tensors({"a": torch.ones(1), "b": "text"}, lambda tensor: tensor * 2)
        {'a': tensor([2.]), 'b': 'text'}
    """
    return _map_leaves(inputs, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def _map_leaves(inputs: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _map_leaves(entry, function) for key, entry in inputs.items()}
    if _is_nest(inputs):
        make = getattr(type(inputs), "_make", type(inputs))
        return make([_map_leaves(entry, function) for entry in inputs])
    return function(inputs)


def _is_nest(value: object) -> bool:
    return isinstance(value, list | tuple) and any(
        isinstance(entry, Tensor | Mapping | list | tuple) for entry in value
    )


def take_rows(inputs: Any, rows: slice | Tensor, *, num_rows: int) -> Any:
    """Take some rows of model inputs.

    Args:
        inputs: tensors, alone or nested; those with B in front are indexed, and so are lists of B strings or numbers.
        rows: a slice (then tensors are views) or a 1-D tensor of row numbers (then they are copies).
        num_rows: B.

    Returns:
        The same nesting with fewer rows; whatever has no B in front is passed through.

    Example:
        >>> take_rows({"x": torch.arange(4), "scale": 2.0}, slice(1, 3), num_rows=4)
        {'x': tensor([1, 2]), 'scale': 2.0}
    """

    def take(leaf: object) -> object:
        if isinstance(leaf, Tensor):
            if leaf.ndim == 0 or len(leaf) != num_rows:
                return leaf
            return leaf[rows if isinstance(rows, slice) else rows.to(leaf.device)]
        if isinstance(leaf, list | tuple) and len(leaf) == num_rows:
            return leaf[rows] if isinstance(rows, slice) else type(leaf)([leaf[row] for row in rows.tolist()])
        return leaf

    return _map_leaves(inputs, take)


def join_rows(parts: Sequence[Any]) -> Any:
    """Put model inputs of one nesting behind one another along B; what has no rows is taken from the first part.

    Example:
        >>> join_rows([(torch.zeros(1), "text"), (torch.ones(2), "text")])
        (tensor([0., 1., 1.]), 'text')
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts)) if first.ndim else first
    if isinstance(first, Mapping):
        return {key: join_rows([part[key] for part in parts]) for key in first}
    if _is_nest(first):
        make = getattr(type(first), "_make", type(first))
        return make([join_rows(entries) for entries in zip(*parts, strict=True)])
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    return first


def image_entries(inputs: Any, image_keys: Sequence[Hashable]) -> tuple[Tensor, ...]:
    """Return the images among the model's inputs, in the order of `image_keys` (none: the inputs are one tensor)."""
    return tuple(inputs[key] for key in image_keys) if image_keys else (inputs,)


def replace_images(inputs: Any, image_keys: Sequence[Hashable], images: Sequence[Tensor]) -> Any:
    """Return the model's inputs with other images in them; the inputs that came stay as they are."""
    if len(images) != max(len(image_keys), 1):
        raise ValueError(f"{len(images)} image tensors came for {max(len(image_keys), 1)} image entries.")
    if not image_keys:
        return images[0]
    new = dict(zip(image_keys, images, strict=True))
    if isinstance(inputs, Mapping):
        return {**inputs, **new}
    make = getattr(type(inputs), "_make", type(inputs))
    return make([new.get(position, entry) for position, entry in enumerate(inputs)])
