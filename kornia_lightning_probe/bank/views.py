"""The views of a bank: an augmentation, a level, a severity; and how they are read from what a user gives."""

import copy
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from kornia_lightning_probe.randomness import isolated_rng


class Ladder(dict[float, nn.Module]):
    """A ladder whose severities are distances from the identity: at severity 0 the augmentation does nothing.

    What `presets` makes. A plain dict of severities is taken as it is: nothing is known of a severity 0.
    """


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
    """

    augmentation: str
    level: int
    severity: float
    transform: Callable[..., Any] = field(compare=False)
    num_levels: int = 1
    from_identity: bool = False

    @property
    def label(self) -> str:
        """A short text for pictures and axes: "rotation 15", or just the name where there is one level only."""
        return self.augmentation if self.num_levels == 1 else f"{self.augmentation} {self.severity:g}"

    @property
    def title(self) -> str:
        """How a message names the view: "Augmentation 'rotation' (level 2, severity 15)"."""
        return f"Augmentation {self.augmentation!r} (level {self.level}, severity {self.severity:g})"


def read_views(views: Any) -> tuple[View, ...]:
    """Read what the user of a bank gave, and copy it.

    Args:
        views: as `AugmentationBank` takes it.

    Returns:
        The views, augmentations in their order, levels by ascending severity.

    Raises:
        TypeError: where `views` isn't a mapping, or an entry isn't an augmentation that can be copied.
        ValueError: for no views, an empty ladder, a name that is empty or holds "/", a severity that isn't finite.
    """
    if not isinstance(views, Mapping):
        raise TypeError(f"views must map names to augmentations, got {type(views).__name__}.")
    if not views:
        raise ValueError("The bank is empty: views must name at least one augmentation.")
    return tuple(view for name, entry in views.items() for view in _read_entry(name, entry))


def _read_entry(name: Any, entry: Any) -> list[View]:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"An augmentation's name must be a text without '/', got {name!r}.")
    ladder = _read_ladder(name, entry)
    if not ladder:
        raise ValueError(f"Augmentation {name!r} has no levels.")
    ordered = sorted(ladder, key=lambda rung: rung[0])
    known = isinstance(entry, Ladder)
    views = [View(name, i, severity, rung, len(ordered), known) for i, (severity, rung) in enumerate(ordered, 1)]
    return [replace(view, transform=_own_copy(view)) for view in views]


def _read_ladder(name: str, entry: Any) -> list[tuple[float, Any]]:
    if isinstance(entry, Mapping):
        return [(_severity(name, severity), transform) for severity, transform in entry.items()]
    if isinstance(entry, list | tuple | nn.ModuleList):
        return [(float(level), transform) for level, transform in enumerate(entry, start=1)]
    return [(1.0, entry)]


def _severity(name: str, severity: Any) -> float:
    # JSON has texts for keys only.
    number = _number(severity) if isinstance(severity, str) else severity
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"Augmentation {name!r}: a severity must be a finite number, got {severity!r}.")
    return float(number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _own_copy(view: View) -> Callable[..., Any]:
    transform = view.transform
    if inspect.isclass(transform):
        raise TypeError(f"{view.title} is the class {transform.__name__}; make an instance of it.")
    if not callable(transform):
        raise TypeError(f"{view.title} is a {type(transform).__name__}, expected a module or another callable.")
    try:
        # Kornia's containers draw nothing when copied, but a foreign class may.
        with isolated_rng():
            return copy.deepcopy(transform)
    except Exception as error:
        raise TypeError(f"{view.title} can't be copied ({error}); give the bank a freshly made one.") from error


def describe_transform(transform: Callable[..., Any]) -> str:
    """Describe an augmentation by a text that is the same in every process.

    Args:
        transform: a module or another callable.

    Returns:
        Its `repr`, or a function's name, without memory addresses.
    """
    text = getattr(transform, "__qualname__", None) or repr(transform)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
