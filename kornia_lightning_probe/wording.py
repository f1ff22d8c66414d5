"""Names and lists in what is said to users: the first few of many, the names nearest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile


def listed(names: Iterable[object], *, most: int = 8) -> str:
    """The first few of many names, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:most])
    if len(texts) <= most:
        return shown
    return f"{shown} and {len(texts) - most} more"


def counted(count: int, thing: str, things: str | None = None) -> str:
    """A number of things, in the singular for one.

    Example:
        >>> counted(1, "layer"), counted(3, "layer"), counted(2, "pass", "passes")
        ('1 layer', '3 layers', '2 passes')
    """
    if count == 1:
        return f"{count} {thing}"
    return f"{count} {things or f'{thing}s'}"


def ladder(name: str, severities: Sequence[float], unit: str = "") -> str:
    """An augmentation and its severities with their unit, of a single level its name.

    Example:
        >>> ladder("rotation", [5, 15.0], "degrees"), ladder("flip", [1.0])
        ('rotation 5, 15 (degrees)', 'flip')
    """
    if len(severities) == 1 and not unit:
        return name
    named = f"{name} {', '.join(f'{severity:g}' for severity in severities)}"
    return f"{named} ({unit})" if unit else named


def quoted(names: Iterable[object], *, most: int = 8) -> str:
    """As :func:`listed`, each name in quotes.

    Example:
        >>> quoted(["conv1", "conv2"])
        "'conv1', 'conv2'"
    """
    return listed([repr(name) for name in names], most=most)


def near_names(name: object, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known names that a misspelt one may stand for, nearest first; none where nothing is near.

    Example:
        >>> near_names("layr1", ["layer1", "layer2", "head"])
        ['layer1', 'layer2']
    """
    return get_close_matches(str(name), list(known), n=most, cutoff=cutoff)


def known_names(kind: str, known: Sequence[str], *, most: int = 12) -> str:
    """The known names as a text.

    Example:
        >>> known_names("metric", ["cosine"])
        'each metric that it has: cosine'
    """
    return f"each {kind} that it has: {listed(known, most=most)}"


def common_module(names: Sequence[str]) -> str:
    """The module that all of several are in; empty for none, and for fewer than two.

    Example:
        >>> common_module(["net.layer1.conv", "net.layer2.conv"]), common_module(["conv", "head"])
        ('net', '')
    """
    if len(names) < 2:
        return ""
    modules = [name.split(".")[:-1] for name in names]
    levels = zip(*modules, strict=False)
    same_in_all = takewhile(lambda parts: len(set(parts)) == 1, levels)
    return ".".join(parts[0] for parts in same_in_all)


def unknown(kind: str, name: object, known: Sequence[str], *, place: str = "result") -> str:
    """The text of an error about a name that isn't known: the names nearest to it, or all that there are.

    Example:
        >>> unknown("layer", "conv3", ["conv1", "head"])
        "there is no layer 'conv3' in this result; did you mean 'conv1'?"
    """
    near = near_names(name, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else known_names(kind, known)
    return f"there is no {kind} {name!r} in this {place}; {hint}"
