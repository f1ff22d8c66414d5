"""The arguments of a probe: what each must be, said where the probe is made and not in the middle of a training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from kornia_lightning_probe.engine.memory import AUTO
from kornia_lightning_probe.wording import near_names, quoted

NAME_RULE = (
    "letters, digits, '_', '-', '.' and spaces inside, at most 100 characters and no '..', as it is the front of every "
    "tag and the name of a folder"
)
_NAME = re.compile(r"[\w.-]([\w. -]*[\w.-])?")
_LONGEST_NAME = 100


def require(argument: str, value: object, fits: bool, *, expected: str) -> None:
    """Refuse a value that doesn't fit.

    Raises:
        MisconfigurationException: saying what came and what was expected.
    """
    if not fits:
        raise MisconfigurationException(f"{argument} must be {expected}, got {value!r}")


def require_name(name: object) -> None:
    """Refuse what can't be a folder's name and the front of a tag.

    Raises:
        MisconfigurationException: with the rule.
    """
    text = name if isinstance(name, str) else ""
    is_path = ".." in text or not text.strip(".")
    fits = _NAME.fullmatch(text) is not None and len(text) <= _LONGEST_NAME
    require("name", name, fits and not is_path, expected=f"a text of {NAME_RULE}")


def require_integer(argument: str, value: Any, *, least: int | None = None) -> None:
    """Refuse what is no integer, or too small.

    Raises:
        MisconfigurationException: saying what came and what was expected.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    require(argument, value, is_integer, expected="an integer")
    if least is not None:
        require(argument, value, int(value) >= least, expected=f"at least {least}")


def require_batch_size(value: Any) -> None:
    """Refuse what is neither a number of images nor "auto".

    Raises:
        MisconfigurationException: saying what came and what was expected.
    """
    if isinstance(value, str):
        require("batch_size", value, value == AUTO, expected="a number of images or 'auto'")
    else:
        require_integer("batch_size", value, least=1)


def require_flag(argument: str, value: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        MisconfigurationException: saying what came.
    """
    require(argument, value, isinstance(value, bool), expected="True or False")


def require_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        MisconfigurationException: with the nearest choice.
    """
    if value not in choices:
        near = near_names(value, choices)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MisconfigurationException(f"{argument} must be one of {quoted(choices)}, got {value!r}{hint}")


def texts_of(argument: str, value: Any) -> tuple[str, ...]:
    """One text or several, as a tuple.

    Raises:
        MisconfigurationException: where an entry is no text.
    """
    texts = value
    if isinstance(value, str):
        texts = (value,)
    fits = isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)
    require(argument, value, fits, expected="a text or a list of texts")
    return tuple(texts)


def require_layers(layers: Any) -> None:
    """Refuse what no layers can be chosen by.

    Raises:
        MisconfigurationException: saying what came and what was expected.
    """
    selectors = layers
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        selectors = (layers,)
    fits = all(isinstance(selector, str) or callable(selector) for selector in selectors)
    expected = "a name, a glob, a regex, a module type, a predicate or a list of these"
    require("layers", layers, fits and len(selectors) > 0, expected=expected)


def require_inputs(images: Any, *, forward: Any, to_inputs: Any, embedding: Any) -> None:
    """Refuse what can be no images, or no way from them to activations.

    Raises:
        MisconfigurationException: for the first of these, saying what came and what was expected.
    """
    are_images = not isinstance(images, str | Integral)
    require("images", images, are_images, expected="a tensor, a dict or tuple of tensors, a dataset or a dataloader")
    calls = forward is None or isinstance(forward, str) or callable(forward)
    require("forward", forward, calls, expected="a callable (module, inputs) or the name of a method or submodule")
    takes = to_inputs is None or isinstance(to_inputs, str | int) or callable(to_inputs)
    require("to_inputs", to_inputs, takes, expected="a callable, a key or an index")
    require("embedding", embedding, embedding is None or isinstance(embedding, str), expected="a layer's name")
