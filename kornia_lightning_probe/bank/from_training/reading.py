"""The children of a pipeline, in their order, each with what stands in front of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from kornia_lightning_probe.bank.from_training import tables
from kornia_lightning_probe.bank.from_training.scale import Scale, scale_of

#: What the view of the whole pipeline is called.
WHOLE = "pipeline"


class Child(NamedTuple):
    """One augmentation of a pipeline.

    Attributes:
        name: what a bank calls it.
        transform: the user's own object.
        by_image: whether it gets one image at a time, as in a dataset.
        in_bytes: whether those are bytes, from 0 to 255.
        scale: the normalisation that it stands behind.
        sizing: the steps in front of it that do the same to the size of every image.
    """

    name: str
    transform: Any
    by_image: bool
    in_bytes: bool
    scale: Scale | None
    sizing: tuple[Any, ...]


class Reader:
    """Walks through a pipeline once and notes what it holds; changes nothing.

    Args:
        pipeline: a container.

    Attributes:
        children: the augmentations.
        scale: the normalisation that the pipeline's result has.
        loaded_scale: the part of it that a dataset's `Compose` applies.
        left_out: a class and the reason, for each step that can't be probed.
        no_ops: the ids of steps that the whole pipeline is to run without.
        converters: the ids of steps that make numbers of bytes.
        starts_in_bytes: whether the pipeline's first step gets bytes.
        resizes: whether a step changes the size.
    """

    def __init__(self, pipeline: Any) -> None:
        self.children: list[Child] = []
        self.scale: Scale | None = None
        self.loaded_scale: Scale | None = None
        self.left_out: dict[str, str] = {}
        self.no_ops: set[int] = set()
        self.converters: set[int] = set()
        self.resizes = False
        self._sizing: list[Any] = []
        self.starts_in_bytes = any(makes_floats(step) for step in _leaves(pipeline))
        self._in_bytes = self.starts_in_bytes
        self._read(pipeline, "", in_dataset=False)
        names = _told_apart([child.name for child in self.children])
        self.children = [child._replace(name=name) for child, name in zip(self.children, names, strict=True)]

    def _read(self, step: Any, name: str, *, in_dataset: bool) -> None:
        if is_container(step):
            inside = in_dataset or "Compose" in tables.class_names(step)
            for index, (given, held) in enumerate(held_by(step)):
                self._read(held, _name_of(held, given, index), in_dataset=inside)
            return
        why = tables.why_unfit(step)
        if why:
            self.left_out[type(step).__name__] = why
            self.no_ops.add(id(step))
        elif tables.is_among(step, frozenset({"Normalize", "Denormalize"})):
            self._read_scale(step, in_dataset=in_dataset)
        elif makes_floats(step):
            self.converters.add(id(step))
            self._in_bytes = False
        elif tables.is_among(step, tables.CONVERSIONS | tables.TO_FLOAT):
            self.no_ops.add(id(step))
        elif tables.is_among(step, tables.SAME_FOR_ALL):
            self.resizes = True
            self._sizing.append(step)
        else:
            self._read_child(step, name, in_dataset=in_dataset)

    def _read_child(self, step: Any, name: str, *, in_dataset: bool) -> None:
        is_crop = tables.is_among(step, tables.CROPS)
        self.resizes = self.resizes or is_crop
        by_image = tables.is_torchvision(step) or (in_dataset and not tables.is_kornia(step))
        sizing = tuple(self._sizing) if is_crop else ()
        self.children.append(Child(name, step, by_image, self._in_bytes, self.scale, sizing))

    def _read_scale(self, step: Any, *, in_dataset: bool) -> None:
        if "Denormalize" in tables.class_names(step):
            if self.scale is None:
                # It takes back what the loader has done, which the bank does, too.
                self.no_ops.add(id(step))
                self.left_out["Denormalize"] = "the bank undoes the loader's normalisation itself"
            self.scale = None
            return
        scale = scale_of(step)
        self.scale = scale if self.scale is None else self.scale.then(scale)
        if in_dataset:
            self.loaded_scale = self.scale
        else:
            self.left_out["Normalize"] = (
                "it runs behind the loader, and a bank's mean and std are of what the loader does"
            )


def is_container(step: Any) -> bool:
    """Whether a step is one of the containers whose children are augmentations of their own."""
    if tables.is_among(step, tables.POLICIES):
        return False
    return tables.is_among(step, tables.CONTAINERS)


def held_by(container: Any) -> list[tuple[str, Any]]:
    """The steps of a container with their names there, "" where they have none; one that is there twice, twice."""
    if isinstance(container, nn.Module) and not hasattr(container, "transforms"):
        return list(container._modules.items())
    return [("", step) for step in container.transforms]


def makes_floats(step: Any) -> bool:
    """Whether a step makes numbers in [0, 1] of bytes."""
    if not tables.is_among(step, tables.TO_FLOAT):
        return False
    dtype = getattr(step, "dtype", torch.float32)
    kinds = list(dtype.values()) if isinstance(dtype, dict) else [dtype]
    return any(kind is not None and kind.is_floating_point for kind in kinds)


def _leaves(step: Any) -> Iterator[Any]:
    if not is_container(step):
        yield step
        return
    for _, held in held_by(step):
        yield from _leaves(held)


def _name_of(step: Callable[..., Any], given: str, index: int) -> str:
    """A name that the user gave, else one made of the class or function."""
    is_made_up = given.isdigit() or given == f"{type(step).__name__}_{index}"
    if given and not is_made_up:
        return given.replace("/", "_")
    title = getattr(step, "__name__", type(step).__name__).strip("<>")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", title.removeprefix("Random"))
    return words.lower() or title.lower()


def _told_apart(names: Sequence[str]) -> list[str]:
    """The same names, numbered where there are several of one; none is that of the whole pipeline."""
    how_often = Counter([*names, WHOLE])
    taken = set(names) | {WHOLE}
    numbers: Counter[str] = Counter()
    told = []
    for name in names:
        own = name
        while how_often[name] > 1 and own in taken:
            numbers[name] += 1
            own = f"{name}_{numbers[name]}"
        taken.add(own)
        told.append(own)
    return told
