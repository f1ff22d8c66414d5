"""A bank of augmentations from a word or a YAML file, in the form that LightningCLI reads too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentParser

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.cli.telling import CommandError, kind_of, one_line, reason_of, shortened

_CLASS = "kornia_lightning_probe.AugmentationBank"
# Of several reasons, one for each type that would do, the first is that of the class that was named.
_REFUSED = re.compile(r"- Problem with given class_path '(?P<class>[^']*)': (?P<why>.*?)(?= - | Given value|$)")
_YAML = (".yaml", ".yml", ".json")


def read_bank(text: str, *, mean: Sequence[float] | None, std: Sequence[float] | None) -> AugmentationBank:
    """Make a bank for images that are normalised so.

    Args:
        text: a preset's name, or a YAML file: `class_path` and `init_args`, the same under `bank:`, or the arguments of
            an AugmentationBank alone.
        mean: of the normalisation; what the file says comes first.
        std: likewise.

    Raises:
        CommandError: where there is no such preset or file, or it describes no bank.
    """
    scale = {"mean": _numbers(mean), "std": _numbers(std)}
    known = {name: numbers for name, numbers in scale.items() if numbers is not None}
    path = Path(text)
    if path.suffix.lower() not in _YAML:
        return AugmentationBank.preset(text, **cast("dict[str, Any]", known))
    if not path.is_file():
        raise CommandError(f"--bank {text}: there is no such file")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--bank", type=AugmentationBank)
    try:
        described = parser.parse_object({"bank": _described(path, known)})
        # Named instantiate_classes in earlier versions of jsonargparse.
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        return cast("AugmentationBank", instantiate(described).bank)
    except Exception as error:
        raise CommandError(f"--bank {text}: it describes no bank: {_reason(error)}") from error


def _described(path: Path, known: dict[str, Any]) -> dict[str, Any]:
    """What a file says, as `class_path` and `init_args`."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and "bank" in content:
        content = content["bank"]
    if not isinstance(content, dict):
        raise CommandError(f"class_path and init_args were expected, got {kind_of(content)}")
    if "class_path" not in content:
        content = {"class_path": _CLASS, "init_args": content}
    arguments = content.get("init_args") or {}
    return {**content, "init_args": {**known, **arguments}}


def _reason(error: Exception) -> str:
    """What the parser refuses, without the list of all that it would have taken."""
    text = one_line(error)
    inner = _REFUSED.search(text)
    if inner:
        return f"{inner['class']}: {inner['why']}"
    return shortened(reason_of(error))


def _numbers(given: Sequence[float] | None) -> list[float] | float | None:
    if given is None or len(given) > 1:
        return None if given is None else list(given)
    return given[0]
