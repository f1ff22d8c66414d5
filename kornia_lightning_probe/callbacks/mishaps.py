"""What becomes of errors: which end a training, which are said aloud, and what is said twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kornia_lightning_probe.engine.processes import OtherRankError, World
from kornia_lightning_probe.result import ProbeResult

_NUMBER = r"(?:[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf)|nan)"
# What was measured stands behind such a word, or is a share. Names of layers and views may be numbers as well.
_MEASURED = re.compile(rf"(?P<before>\b(?:of|by|than|is|are|in|to|from|about) |[=(]){_NUMBER}\b|(?<![\w.]){_NUMBER} ?%")
_BETWEEN = re.compile(rf"\bbetween {_NUMBER} and {_NUMBER}\b")
_COUNTED = re.compile(r"(?<![\w.'])\d+ of (?=\d)")
_LISTED_IMAGES = re.compile(r"\bimages \d+(?:, \d+)*(?: and \d+ more)?")


def without_values(sentence: str) -> str:
    """The sentence without its measured values, by which one that was said already is known again.

    Example:
        >>> without_values("one channel holds 51 % at layer1") == without_values("one channel holds 98 % at layer1")
        True
        >>> without_values("nothing came from 3, 4") == without_values("nothing came from 3, 5")
        False
    """
    shorter = _LISTED_IMAGES.sub("images #", sentence)
    shorter = _BETWEEN.sub("between # and #", shorter)
    shorter = _COUNTED.sub("# of ", shorter)
    return _MEASURED.sub(_blank, shorter)


def _blank(found: re.Match[str]) -> str:
    return f"{found['before'] or ''}#"


@contextmanager
def only_warned_of(what: str, *, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Let whatever fails in here be one warning: a diagnostic never ends a training.

    Args:
        what: what is tried, such as "write its file".
        name: the probe's.
        say: how to warn.
    """
    try:
        yield
    except Exception as error:
        say(
            f"the probe {name!r} could not {what} ({type(error).__name__}: {error}); the training goes on, and the "
            "result stays in memory"
        )


def agree(world: World, failure: Exception | None) -> Exception | None:
    """Let every process know whether all have succeeded, so that all go on or none.

    Args:
        world: the processes.
        failure: what this one has failed with.

    Returns:
        What this process has failed with, or that another one has; None where all have succeeded.
    """
    if failure is not None and world.lockstep:
        # The others may be waiting in a forward pass, and can't be told.
        return failure
    report = "" if failure is None else f"{type(failure).__name__}: {failure}"
    reports = world.gather(report)
    if failure is not None:
        return failure
    for rank, text in enumerate(reports):
        if text:
            return OtherRankError(f"the probe failed on rank {rank}: {text}")
    return None


def memory_note(*, name: str, batch_size: int, last: ProbeResult | None) -> str:
    """What a probe needs memory for, and how it needs less."""
    held = "the clean activations of one block of about 32 images at all chosen layers"
    size = None if last is None else last.metadata.get("clean_block_bytes")
    if size is not None:
        held += f" ({size / 2**20:.0f} MiB at the last probe)"
    return (
        f"the probe {name!r} has run out of memory: it holds {held} and what the model needs for batch_size="
        f"{batch_size} images in one forward pass; lower batch_size=, which changes no number, or choose fewer layers="
    )


def told(error: BaseException) -> str:
    """An error as part of a sentence, with its notes."""
    notes = getattr(error, "__notes__", [])
    return "; ".join([f"{type(error).__name__}: {error}", *notes])
