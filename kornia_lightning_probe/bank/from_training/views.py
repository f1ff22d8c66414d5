"""The views of a bank from a pipeline: a ladder for each child, and the whole as it is drawn in training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from kornia_lightning_probe.bank.from_training import tables
from kornia_lightning_probe.bank.from_training.pins import PART, Pin, ends_at, look_up, put, range_of, reach_at, shrunk
from kornia_lightning_probe.bank.from_training.reading import WHOLE, Child, Reader, held_by, is_container
from kornia_lightning_probe.bank.from_training.scale import Scale
from kornia_lightning_probe.bank.from_training.steps import AtEnds, ImageByImage, SameSize, ToUnit, Unscaled
from kornia_lightning_probe.bank.views import Ladder
from kornia_lightning_probe.checks import whole_number
from kornia_lightning_probe.randomness import isolated_rng
from kornia_lightning_probe.wording import listed


class FromTraining(NamedTuple):
    """What a bank is made of.

    Attributes:
        views: as `AugmentationBank` takes them.
        scale: the normalisation that the dataset applies; None where it has none.
        left_out: the classes of steps that can't be probed, and why.
    """

    views: dict[str, Any]
    scale: Scale | None
    left_out: dict[str, str]

    def why_left_out(self) -> str:
        """The classes and the reasons as a text."""
        return listed(f"{name} ({why})" for name, why in self.left_out.items())

    def statistics(self, mean: Any, std: Any) -> tuple[Any, Any]:
        """Mean and standard deviation: those that are given, else the dataset's."""
        if self.scale is None:
            return mean, std
        own_mean, own_std = (list(numbers) for numbers in self.scale)
        return (own_mean if mean is None else mean), (own_std if std is None else std)


def views_from_training(pipeline: Any, levels: int = 3) -> FromTraining:
    """Make ladders of the children of a pipeline, see `AugmentationBank.from_training`."""
    levels = whole_number("levels", levels, least=1)
    own = getattr(pipeline, "_orig_mod", pipeline)
    if not is_container(own):
        raise TypeError(_no_container(own))
    if not held_by(own):
        raise ValueError(f"The pipeline is empty: {type(own).__name__} holds no augmentation")
    reader = Reader(own)
    if not reader.children:
        held = listed([type(step).__name__ for _, step in held_by(own)])
        raise ValueError(f"The pipeline holds no augmentation that can be probed, only {held}")
    # Kornia's classes draw nothing when copied, but others may.
    with isolated_rng():
        views = {child.name: _ladder(child, levels) for child in reader.children}
        views[WHOLE] = _whole(own, reader)
    return FromTraining(views, reader.loaded_scale, reader.left_out)


def _no_container(pipeline: Any) -> str:
    if isinstance(pipeline, type):
        return f"from_training takes a pipeline, got the class {pipeline.__name__}; make an instance of it"
    kind, package = type(pipeline).__name__, type(pipeline).__module__.partition(".")[0]
    origin = "" if package in ("builtins", "kornia", "torch") else f" of {package}"
    return (
        "from_training takes a container of augmentations (Kornia's AugmentationSequential or ImageSequential, an "
        f"nn.Sequential, torchvision's Compose), got {kind}{origin}; write nn.Sequential(...) around its steps"
    )


def _ladder(child: Child, levels: int) -> Any:
    """A ladder of growing parts of the range; the user's own draw where the class has no magnitude that is known."""
    ranges = []
    for pin in tables.pins_of(child.transform, in_bytes=child.in_bytes):
        limits = range_of(child.transform, pin)
        if limits is not None:
            ranges.append((pin, limits))
    ladder = Ladder()
    ladder.unit = _unit(ranges)
    for level in range(1, levels + 1):
        part = level / levels
        severity = _severity(ranges, ladder.unit, part)
        # A whole number may be that of the identity, or of the level before.
        if severity > 0 and severity not in ladder:
            ladder[severity] = _called(child, _pinned(child, ranges, part))
    if ladder:
        return ladder
    return _called(child, _always(child.transform))


_Ranges = list[tuple[Pin, tuple[float, float]]]


def _unit(ranges: _Ranges) -> str:
    """The parameter's own, where all of them have one unit and reach equally far."""
    kinds = {(pin.unit, reach_at(limits, pin, 1.0)) for pin, limits in ranges}
    return kinds.pop()[0] if len(kinds) == 1 else PART


def _severity(ranges: _Ranges, unit: str, part: float) -> float:
    if not ranges:
        return 0.0
    if unit == PART:
        return round(part, 9)
    pin, limits = ranges[0]
    return reach_at(limits, pin, part)


def _pinned(child: Child, ranges: _Ranges, part: float) -> Any:
    """An own copy of a step, always applied, whose magnitudes are at the ends of a part of their range."""
    own = _always(child.transform)
    drawn = []
    for pin, limits in ranges:
        held = look_up(own, pin.place)
        if not pin.drawn:
            put(own, pin.place, shrunk(held, pin, part))
        elif child.by_image:
            drawn.append((pin, ends_at(limits, pin, part)))
        elif hasattr(held, "low"):
            put(own, pin.place, ends_at(limits, pin, part))
        else:
            # The area of Kornia's crops is a pair of numbers, which nobody draws for each image.
            far = float(ends_at(limits, pin, part).low)
            put(own, pin.place, (far, far))
    if child.by_image:
        return AtEnds(own, drawn)
    # So that a description tells the levels apart: Kornia's shows the range that the class was made with.
    own.flags["part"] = part
    return own


def _always(transform: Any) -> Any:
    """An own copy of a step that is applied to every image, each with a draw of its own."""
    own = _copied(transform)
    if tables.is_kornia(own) and hasattr(own, "p_batch"):
        own.p = own.p_batch = 1.0
        own.same_on_batch = False
    elif _has_probability(own):
        own.p = 1.0
    return own


def _copied(step: Any) -> Any:
    try:
        return copy.deepcopy(step)
    except Exception as error:
        kind = type(step).__name__
        raise TypeError(f"{kind} of the pipeline can't be copied ({error}); give a freshly made one") from error


def _has_probability(transform: Any) -> bool:
    """Whether its `p` is that of being applied, and not of something inside."""
    names = tables.class_names(transform)
    is_theirs = tables.is_torchvision(transform) and names[:1] == [type(transform).__name__]
    is_applied = is_theirs and hasattr(transform, "p") and "RandomPhotometricDistort" not in names
    return is_applied or "_RandomApplyTransform" in names


def _called(child: Child, own: Any) -> Any:
    """A step as a bank can call it: on a batch of images in [0, 1], whose size it keeps."""
    sizing = [_copied(step) for step in child.sizing]
    called = own
    if child.by_image:
        called = ImageByImage([*sizing, own], in_bytes=child.in_bytes)
    elif tables.is_among(child.transform, tables.CROPS):
        called = SameSize(nn.Sequential(*sizing, own))
    if child.scale is None:
        return called
    return Unscaled(called, before=child.scale, after=child.scale)


def _whole(pipeline: Any, reader: Reader) -> Callable[..., Any]:
    """An own copy of the pipeline as it is drawn in training, without what a bank does itself."""
    whole: Any = _whole_unmarked(pipeline, reader)
    # That it changes part of the images only is what it is for.
    whole.as_drawn = True
    drawn: Callable[..., Any] = whole
    return drawn


def _whole_unmarked(pipeline: Any, reader: Reader) -> Callable[..., Any]:
    whole: Callable[..., Any] = _without(pipeline, _copied(pipeline), reader)
    if any(child.by_image for child in reader.children):
        is_dataset = not isinstance(pipeline, nn.Sequential)
        whole = ImageByImage([whole], in_bytes=reader.starts_in_bytes, as_batch=not is_dataset)
    elif reader.resizes:
        whole = SameSize(whole)
    if reader.scale is None:
        return whole
    return Unscaled(whole, before=None, after=reader.scale)


def _without(step: Any, own: Any, reader: Reader) -> Any:
    """The copy of a step without what a pipeline is to run without: others in its place, so that all keep theirs."""
    if id(step) in reader.no_ops:
        return nn.Identity()
    if id(step) in reader.converters:
        return ToUnit()
    if not is_container(step):
        return own
    pairs = list(zip(held_by(step), held_by(own), strict=True))
    kept = [(name, _without(held, copied, reader)) for (name, held), (_, copied) in pairs]
    if hasattr(own, "transforms"):
        own.transforms = type(own.transforms)(new for _, new in kept)
    else:
        own._modules.update(kept)
    return own
