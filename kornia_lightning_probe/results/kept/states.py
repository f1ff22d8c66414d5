"""The results of a training in a checkpoint: each packed once, and what is the same in all of them held once."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.results.image_files import ImagesInFile
from kornia_lightning_probe.results.kept.packed import is_packed, packed, unpacked
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.storage import numbers_of, state_of


class _Packed(NamedTuple):
    """The state of a result, and what it was made of, none of which can be changed."""

    parts: list[Any]
    exact: bool
    state: dict[str, Any]

    def is_of(self, numbers: ProbeNumbers, *, exact: bool) -> bool:
        """Whether the result still has these parts."""
        parts = _parts(numbers)
        is_same = len(parts) == len(self.parts) and all(map(operator.is_, parts, self.parts))
        return is_same and self.exact == exact


def _parts(numbers: ProbeNumbers) -> list[Any]:
    parts = [numbers.epoch, numbers.step, numbers.layers, numbers.views, numbers.metadata, numbers.images_elsewhere]
    for metric, table in numbers.tables.items():
        parts += [metric, table]
    return parts


class States:
    """Writes the states of results, each of which is packed once.

    Example:
        >>> states, numbers = States(), ProbeNumbers(layers=["fc"], views=[], tables={})
        >>> first, second = states.of([numbers, ProbeNumbers(layers=["fc"], views=[], tables={})])
        >>> first["layers"] is second["layers"]
        True
    """

    def __init__(self) -> None:
        self._done: dict[int, _Packed] = {}

    def of(self, history: Sequence[ProbeNumbers], *, exact: Collection[int] = ()) -> list[dict[str, Any]]:
        """The states of results, oldest first; equal parts are the same objects, which a pickle writes once.

        Args:
            history: all results.
            exact: the places of those of which every digit is kept; of the others those of `rounded`.

        Returns:
            Plain containers, numbers, strings and tensors, that load as weights only.
        """
        done: dict[int, _Packed] = {}
        states: list[dict[str, Any]] = []
        for place, numbers in enumerate(history):
            each = self._done.get(id(numbers))
            if each is None or not each.is_of(numbers, exact=place in exact):
                state = _state(numbers, exact=place in exact)
                if states:
                    state = _shared(state, states[-1])
                each = _Packed(_parts(numbers), place in exact, state)
            done[id(numbers)] = each
            states.append(each.state)
        self._done = done
        return states


def numbers_of_checkpoint(state: Any, *, checkpoint: object = None) -> ProbeNumbers:
    """The numbers in the state of one result, of this version or an earlier one.

    Args:
        state: as :meth:`States.of` gives it.
        checkpoint: where it comes from: the images' file is looked for beside it, too.

    Raises:
        ValueError: If the state is malformed, with the place in it, or of a later format.
    """
    if not is_packed(state):
        return numbers_of(state)
    numbers = numbers_of(unpacked(state))
    if "images" in state:
        numbers.images_elsewhere = ImagesInFile.from_state(state["images"], near=checkpoint)
    return numbers


def _state(numbers: ProbeNumbers, *, exact: bool) -> dict[str, Any]:
    state = packed(state_of(numbers), exact=exact)
    if isinstance(numbers.images_elsewhere, ImagesInFile):
        state["images"] = numbers.images_elsewhere.state()
    return state


def _shared(new: Any, old: Any) -> Any:
    """The new value, with every part that equals the old one's replaced by that very object."""
    if type(new) is not type(old):
        return new
    if isinstance(new, Tensor):
        same = new.dtype == old.dtype and torch.equal(new, old)
    elif isinstance(new, dict):
        new = {key: _shared(value, old.get(key)) for key, value in new.items()}
        same = new.keys() == old.keys() and all(new[key] is old[key] for key in new)
    else:
        same = new == old
    if same:
        return old
    return new
