"""Objects of a user's own by name: `package.module:Name`, from the current folder too."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from kornia_lightning_probe.cli.telling import CommandError, reason_of
from kornia_lightning_probe.wording import near_names


def is_name(text: str) -> bool:
    """Whether a text is MODULE:NAME rather than a path.

    Example:
        >>> is_name("my_project.data:photographs"), is_name("photographs/cats"), is_name("C:/photographs")
        (True, False, False)
    """
    module, colon, name = text.partition(":")
    parts = [*module.split("."), *name.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def named_object(text: str, *, option: str) -> Any:
    """Import what a name stands for.

    Args:
        text: MODULE:NAME; the name may have dots.
        option: which option it was given to, for messages.

    Raises:
        CommandError: where there is no such module or name, or the module can't be imported.
    """
    if not is_name(text):
        raise CommandError(f"{option} takes MODULE:NAME such as my_project.nets:Classifier, got {text!r}")
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise CommandError(f"{option} {text}: module {module_name} can't be imported: {reason_of(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            near = near_names(part, dir(found))
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CommandError(f"{option} {text}: there is no {part!r} in it{hint}")
        found = getattr(found, part)
    return found
