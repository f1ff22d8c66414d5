"""The views of a bank: an augmentation, a level, a severity; and how they are read from what a user gives."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from kornia_lightning_probe.bank.moving import moves_pixels
from kornia_lightning_probe.randomness import isolated_rng
from kornia_lightning_probe.wording import ladder as ladder_in_words
from kornia_lightning_probe.wording import unknown


class Ladder(dict[float, nn.Module]):
    """A ladder whose severities are distances from the identity: at severity 0 the augmentation does nothing.

    What `presets` makes. A plain dict of severities is taken as it is: nothing is known of a severity 0.

    Attributes:
        unit: of the severities, such as "degrees"; "" for none.
    """

    unit: str = ""


class Extremes(dict[float, nn.Module]):
    """Views that are no curve: both ends of a range, or the corners of several, each under a number of its own.

    Nothing is drawn for images, and there is no area under them and no onset; what is asked of them is the worst.

    Attributes:
        unit: of the severities, such as "degrees"; "" for none.
    """

    unit: str = ""


@dataclass(frozen=True)
class View:
    """One augmentation at one level.

    Attributes:
        augmentation: the name of the augmentation.
        level: its place in the ladder, from 1.
        severity: its magnitude, in the unit of the ladder.
        transform: the bank's own copy of the augmentation.
        num_levels: how many levels the ladder has.
        from_identity: whether the severity is the distance from the identity, as in every ladder of the presets.
        severity_given: whether the user wrote the severity, in a mapping of severities; a list has levels only.
        moves_pixels: whether it moves pixels from where they are, told by what the augmentation is, see
            `bank.moving.moves_pixels`, or by the user.
        on_curve: whether the severities of its augmentation are a curve, and not `Extremes`.
        unit: of the severity, such as "degrees", of a preset's or a pipeline's ladder; "" where nobody has said it.
        is_twin: whether it is not the augmentation itself but noise as long as its movement, see `bank.twins`.
    """

    augmentation: str
    level: int
    severity: float
    transform: Callable[..., Any] = field(compare=False)
    num_levels: int = 1
    from_identity: bool = False
    moves_pixels: bool = False
    severity_given: bool = False
    on_curve: bool = True
    unit: str = ""
    is_twin: bool = False

    @property
    def label(self) -> str:
        """A short text for pictures and axes: "rotation 15", or just the name where there is one level only."""
        if self.num_levels == 1:
            return self.augmentation
        return f"{self.augmentation} {self.severity:g}"

    @property
    def title(self) -> str:
        """How a message names the view: "Augmentation 'rotation' (level 2, severity 15)"."""
        return f"Augmentation {self.augmentation!r} (level {self.level}, severity {self.severity:g})"


def read_views(views: Any, *, moving: str | Sequence[str] = ()) -> tuple[View, ...]:
    """Read what the user of a bank gave, and copy it.

    Args:
        views: as `AugmentationBank` takes it.
        moving: names of augmentations that move pixels, whatever they look like.

    Returns:
        The views, augmentations in their order, levels by ascending severity.

    Raises:
        TypeError: where `views` isn't a mapping, an entry isn't an augmentation that can be copied, or `moving` holds
            anything but names.
        ValueError: for no views, an empty ladder, a name that is empty or holds "/", a severity that isn't finite, or
            an unknown name in `moving`.
    """
    if not isinstance(views, Mapping | nn.ModuleDict):
        raise TypeError(f"views must map names to augmentations, got {_how_to_name(views)}")
    if not views:
        raise ValueError("The bank is empty: views must name at least one augmentation")
    said = _moving_names(moving, [str(name) for name in views])
    read = []
    for name, entry in views.items():
        read += _read_entry(name, entry, moves=name in said)
    return tuple(read)


def _how_to_name(views: Any) -> str:
    """What came instead of a mapping, and how it is written as one."""
    if isinstance(views, str):
        return f"the text {views!r}; for a preset by name write AugmentationBank.preset({views!r})"
    kind = views.__name__ if inspect.isclass(views) else type(views).__name__
    if _is_list(views):
        return f"{kind}; as the levels of one augmentation write {{'name': [first, second]}}, else name each"
    if callable(views):
        return f"{kind}; write {{'name': {kind}(...)}}, where the name is what results will call it"
    return f"{kind}; write {{'flip': K.RandomHorizontalFlip(p=1.0)}}, for example"


def _moving_names(moving: Any, known: list[str]) -> list[str]:
    if not isinstance(moving, Iterable):
        raise TypeError(f"moves_pixels takes names of augmentations, such as ('roll',), got {moving!r}")
    names = [moving] if isinstance(moving, str) else list(moving)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"moves_pixels takes names of augmentations, such as ('roll',), got {name!r} among them")
        if name not in known:
            raise ValueError(f"moves_pixels: {unknown('augmentation', name, known, place='bank')}")
    return names


def _read_entry(name: Any, entry: Any, *, moves: bool) -> list[View]:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"An augmentation's name must be a text without '/', got {name!r}")
    ladder = sorted(_read_ladder(name, entry), key=lambda rung: rung[0])
    if not ladder:
        raise ValueError(f"Augmentation {name!r} has no levels")
    named = functools.partial(
        View,
        name,
        num_levels=len(ladder),
        from_identity=isinstance(entry, Ladder),
        severity_given=isinstance(entry, Mapping | nn.ModuleDict) and not isinstance(entry, Ladder | Extremes),
        on_curve=not isinstance(entry, Extremes),
        unit=entry.unit if isinstance(entry, Ladder | Extremes) else "",
    )
    views = []
    for level, (severity, transform) in enumerate(ladder, start=1):
        given = named(level=level, severity=severity, transform=transform)
        own = _own_copy(given)
        views.append(replace(given, transform=own, moves_pixels=moves or moves_pixels(own)))
    return views


def _read_ladder(name: str, entry: Any) -> list[tuple[float, Any]]:
    if isinstance(entry, Mapping | nn.ModuleDict):
        return [(_severity(name, severity), transform) for severity, transform in entry.items()]
    if _is_list(entry):
        return [(float(level), transform) for level, transform in enumerate(entry, start=1)]
    return [(1.0, entry)]


def _is_list(entry: Any) -> bool:
    # OmegaConf's lists are sequences and no list.
    if isinstance(entry, str) or (callable(entry) and not isinstance(entry, nn.ModuleList)):
        return False
    return isinstance(entry, Sequence | nn.ModuleList)


def _severity(name: str, severity: Any) -> float:
    # JSON has texts for keys only.
    number = _number(severity) if isinstance(severity, str) else severity
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number):
        raise ValueError(f"Augmentation {name!r}: a severity must be a finite number, got {severity!r}")
    return float(number)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return None


def _own_copy(view: View) -> Callable[..., Any]:
    transform = view.transform
    if inspect.isclass(transform):
        raise TypeError(f"{view.title} is the class {transform.__name__}; make an instance of it")
    if not callable(transform):
        raise TypeError(f"{view.title} is a {type(transform).__name__}, expected a module or another callable")
    try:
        # Kornia's containers draw nothing when copied, but a foreign class may.
        with isolated_rng():
            return copy.deepcopy(transform)
    except Exception as error:
        raise TypeError(f"{view.title} can't be copied ({error}); give the bank a freshly made one") from error


def describe_transform(transform: Callable[..., Any]) -> str:
    """Describe an augmentation by a text that is the same in every process.

    Args:
        transform: a module or another callable.

    Returns:
        Its `repr`, or a function's name, without memory addresses.
    """
    text = getattr(transform, "__qualname__", None) or repr(transform)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def describe_view(view: View) -> dict[str, Any]:
    """Describe a view in plain types that JSON can hold and that are the same in every process."""
    return {
        "augmentation": view.augmentation,
        "level": view.level,
        "severity": view.severity,
        "moves_pixels": view.moves_pixels,
        "transform": describe_transform(view.transform),
    }


def describe_ladders(views: Iterable[View]) -> list[str]:
    """Each augmentation with its severities and their unit, as in "rotation 5, 15 (degrees)"."""
    severities: dict[str, list[float]] = {}
    units = {}
    for view in views:
        severities.setdefault(view.augmentation, []).append(view.severity)
        units[view.augmentation] = view.unit
    return [ladder_in_words(name, each, units[name]) for name, each in severities.items()]
