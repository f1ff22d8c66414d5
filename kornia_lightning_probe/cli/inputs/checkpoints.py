"""Saved weights: files in natural order, read as weights only, and put into a model that is made anew."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lightning_probe.cli.files import natural
from kornia_lightning_probe.cli.telling import CommandError, kind_of, one_line, reason_of, shortened
from kornia_lightning_probe.wording import listed

_SIGNS = "*?["


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds.

    Args:
        state: a tensor for each name.
        epoch: of the training; 0 where the file does not say.
        step: likewise.
        arguments: with which the model was made, where Lightning has kept them.
    """

    state: Mapping[str, Tensor]
    epoch: int = 0
    step: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_paths(patterns: Sequence[str]) -> list[Path]:
    """The files that are named, or match a pattern, each once and in natural order.

    Raises:
        CommandError: where a pattern matches no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        is_pattern = not Path(pattern).exists() and any(sign in pattern for sign in _SIGNS)
        names = glob.glob(pattern, recursive=True) if is_pattern else [pattern]  # noqa: PTH207 - takes absolute ones
        paths = {Path(name) for name in names if Path(name).is_file()}
        if not paths:
            raise CommandError(f"--checkpoint {pattern}: no such file; put patterns in quotes: 'runs/**/*.ckpt'")
        found |= paths
    return sorted(found, key=natural)


def read_weights(path: Path) -> Weights:
    """Read a checkpoint of Lightning's, a state dict, or a dict that holds one as `state_dict` or `model`.

    Nothing but weights is read: a file that would run code is refused.

    Raises:
        CommandError: where the file can't be read so, or holds no weights.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Torch names what is not weights a global, and tells all else apart by the type alone.
        if "GLOBAL" in str(error).upper():
            raise CommandError(
                "it holds more than weights, which could run code when read; save model.state_dict()"
            ) from error
        raise CommandError(f"it is broken, or no checkpoint ({type(error).__name__})") from error
    if not isinstance(content, Mapping):
        raise CommandError(f"it holds {kind_of(content)}, and a state dict was expected")
    inner = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise CommandError("it holds no weights: no tensor in it has a name")
    epoch, step = content.get("epoch"), content.get("global_step")
    kept = content.get("hyper_parameters")
    return Weights(
        state,
        epoch=epoch if isinstance(epoch, int) else 0,
        step=step if isinstance(step, int) else 0,
        arguments=dict(kept) if isinstance(kept, Mapping) else {},
    )


def model_with(maker: Callable[..., Any], weights: Weights) -> nn.Module:
    """Make a model and put weights into it.

    Args:
        maker: a class or function; of its arguments it gets those that the checkpoint has kept.
        weights: the checkpoint's.

    Raises:
        CommandError: where no nn.Module is made, or the weights are of another model.
    """
    parameters = inspect.signature(maker).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    taken = {name: value for name, value in weights.arguments.items() if takes_all or name in parameters}
    try:
        model = maker(**taken)
    except TypeError as error:
        raise CommandError(
            f"the model can't be made: {reason_of(error)}; name a function without arguments that makes it"
        ) from error
    except Exception as error:
        raise CommandError(f"the model can't be made: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise CommandError(f"an nn.Module was expected of --model, got {kind_of(model)}")
    state = _without_prefix(weights.state, set(model.state_dict()))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CommandError(f"its weights are not those of the model: {shortened(reason_of(error))}") from error
    return model.eval()


def _without_prefix(state: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """A state dict under the model's own names, where it was saved as a part of another module.

    Lightning saves a net that is an attribute of its module under the attribute's name, DDP under `module`, a compiled
    one under `_orig_mod`.
    """
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    if not wanted or wanted & set(plain):
        return plain
    one = min(wanted)
    prefixes = [name.removesuffix(one) for name in plain if name.endswith(f".{one}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in plain for name in wanted)]
    if len(fitting) > 1:
        raise CommandError(f"it holds the model's weights under each of {listed(fitting)}; save the one you mean")
    if not fitting:
        return plain
    length = len(fitting[0])
    return {name[length:]: value for name, value in plain.items() if name.startswith(fitting[0])}
