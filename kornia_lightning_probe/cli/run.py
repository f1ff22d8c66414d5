"""`run`: saved checkpoints, each probed on the same images, and what has changed since the first."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from kornia_lightning_probe.cli.files import Found, timed
from kornia_lightning_probe.cli.inputs.banks import read_bank
from kornia_lightning_probe.cli.inputs.checkpoints import checkpoint_paths, model_with, read_weights
from kornia_lightning_probe.cli.inputs.named import named_object
from kornia_lightning_probe.cli.inputs.pictures import Wish, read_images
from kornia_lightning_probe.cli.report import write_page
from kornia_lightning_probe.cli.telling import (
    FINE,
    PROGRAM,
    CommandError,
    kind_of,
    one_line,
    reason_of,
    remark,
    say,
    shortened,
    warnings_as_remarks,
)
from kornia_lightning_probe.metrics import resolve_metrics
from kornia_lightning_probe.probe import probe_model
from kornia_lightning_probe.reporting.html import Probed, require_extra
from kornia_lightning_probe.wording import counted


def run(given: Any) -> int:
    """Probe checkpoints and write a JSON file for each.

    Args:
        given: model, checkpoint, images, size, mean, std, bank, output, num_images, batch_size, layers, metrics,
            forward, device, seed.
    """
    output = _output(given.output)
    _require_device(given.device)
    paths = checkpoint_paths(given.checkpoint)
    maker = named_object(given.model, option="--model")
    if not callable(maker):
        raise CommandError(f"--model {given.model}: a class or function was expected, got {kind_of(maker)}")
    if given.metrics is not None:
        resolve_metrics(given.metrics)
    wish = _wish(given)
    bank = read_bank(given.bank, mean=given.mean, std=given.std)
    images, labels = read_images(given.images, wish)
    options = {
        "bank": bank,
        "labels": labels,
        "layers": "auto" if given.layers == ["auto"] else given.layers,
        "metrics": given.metrics,
        "forward": given.forward,
        "device": given.device,
        "batch_size": given.batch_size,
        "seed": given.seed,
        "progress": sys.stderr.isatty(),
    }
    probed = list(_probed(paths, maker, images, options, output))
    if not probed:
        raise CommandError(f"{counted(len(paths), 'checkpoint')} given, none could be probed; the reasons stand above")
    _conclude(probed, num_skipped=len(paths) - len(probed))
    _report(probed, output, getattr(maker, "__name__", ""))
    return FINE


def _output(text: str) -> Path:
    """The folder of the results, made before anything is measured."""
    output = Path(text)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--output {text} is no folder, nor can one be made there: {error.strerror}") from error
    return output


def _require_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except Exception as error:
        raise CommandError(f"--device {name}: {shortened(one_line(error))}") from error


def _report(probed: Sequence[tuple[Path, Found]], output: Path, model: str) -> None:
    """One page of all checkpoints, where the packages that draw it are there."""
    results = [found.result for _, found in probed]
    labels = [path.stem for path, _ in probed]
    try:
        require_extra()
    except ImportError as error:
        remark(f"no report.html: {error}")
        return
    write_page(output / "report.html", [Probed(output.resolve().name, results, model=model, labels=labels)])


def _wish(given: Any) -> Wish:
    if given.size is not None and (len(given.size) > 2 or min(given.size) < 1):
        raise CommandError(f"--size takes a side, or height and width, got {given.size}")
    if given.num_images < 1:
        raise CommandError(f"--num-images must be at least 1, got {given.num_images}")
    if given.std is not None and min(given.std) <= 0:
        raise CommandError(f"--std must be positive, got {given.std}")
    size = None if given.size is None else (given.size[0], given.size[-1])
    return Wish(size, given.mean, given.std, most=given.num_images, seed=given.seed)


def _probed(
    paths: Sequence[Path], maker: Any, images: Any, options: dict[str, Any], output: Path
) -> Iterator[tuple[Path, Found]]:
    """Each checkpoint with its result, written; what can't be read is skipped, with the reason."""
    names = _names(paths)
    # Without a terminal there is no bar: a log would get a line for each of its steps.
    for path, name in zip(tqdm(paths, desc="checkpoints", disable=None), names, strict=True):
        try:
            weights = read_weights(path)
            model = model_with(maker, weights)
        except CommandError as error:
            remark(f"skipped {path}: {reason_of(error)}")
            continue
        with warnings_as_remarks():
            result = probe_model(model, images, **options)
        result.epoch, result.step = weights.epoch, weights.step
        target = output / name
        result.to_json(target)
        yield path, Found(target, result)


def _names(paths: Sequence[Path]) -> list[Path]:
    """Where the results go in the output folder: as the checkpoints lie below the folder that they share."""
    shared = os.path.commonpath([path.absolute().parent for path in paths])
    below = [path.absolute().relative_to(shared) for path in paths]
    names = [path.with_name(f"{path.stem}.json") for path in below]
    if len(set(names)) < len(names):
        return [path.with_name(f"{path.name}.json") for path in below]
    return names


def _conclude(probed: Sequence[tuple[Path, Found]], *, num_skipped: int) -> None:
    for path, found in probed:
        say(f"{timed(path, found.result)} -> {found.path}")
    if num_skipped:
        say(f"skipped: {num_skipped} of {num_skipped + len(probed)} checkpoints")
    first, last = probed[0], probed[-1]
    if last is first:
        say(f"\n{last[0]}:\n{last[1].result.summary()}")
    else:
        changed = first[1].result.compare(last[1].result)
        say(f"\n{last[0]}:\n{last[1].result.verdict()}")
        say(f"\nThe first checkpoint is {first[0]}; from it to {last[0]}:\n{changed.summary()}")
    say(f"\nread on: {PROGRAM} show {last[1].path} --full")
