"""Some images of the first block once more, in other company: does a pass repeat itself, do images touch each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_lightning_probe.activations.site import INPUT
from kornia_lightning_probe.engine.passes import Forward, other_rows, room_for
from kornia_lightning_probe.functional.distances import squared_distance, squared_norm
from kornia_lightning_probe.functional.estimates import between_image_deviation
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import take_rows

# At most so many images pass again.
_MOST = 8
# Two passes of one image in other batches differ by so many roundings, relative to its length, and not by more.
_ROUNDINGS = {torch.float16: 16, torch.bfloat16: 16}
_OTHERS = 128


@dataclass(frozen=True)
class Company:
    """What a second look at some images has shown.

    Args:
        noise: how far two equal passes lie apart, as a sensitivity, by layer; empty for a forward that repeats itself.
        touching: layers at which what an image gives depends on the others in its batch.
        strangers: layers with no axis of images, though the block's size was like one by chance, and why.
    """

    noise: Mapping[str, float]
    touching: Sequence[str]
    strangers: Mapping[str, str]


def see_in_company(forward: Forward, block: Block, clean: Mapping[str, Tensor]) -> Company:
    """Pass at most eight images of a block in one batch, and compare them with what they gave before.

    A difference beyond rounding is noise of the forward itself, or that of other images in the batch; two more passes
    of the same images tell.

    Args:
        forward: the model, its hooks open.
        block: the first block, on the model's device.
        clean: its clean activations by layer, from its first pass.
    """
    count = len(block)
    few = max(2, min(_MOST, count // 2))
    rows = torch.linspace(0, count - 1, min(few, count)).round().long()
    strangers: dict[str, str] = {}
    found = _pass(forward, block, rows, strangers, draw="company")
    before = {name: activation[rows.to(activation.device)] for name, activation in clean.items()}
    moved = _beyond_rounding(before, found)
    if not moved:
        return Company({}, (), strangers)
    again, once_more = (_pass(forward, block, rows, strangers, draw=f"company {number}") for number in (2, 3))
    noisy = _beyond_rounding(again, once_more)
    noise = {name: _sensitivity(clean[name], again[name], once_more[name]) for name in noisy}
    return Company(noise, [name for name in moved if name not in noise], strangers)


def _pass(forward: Forward, block: Block, rows: Tensor, strangers: dict[str, str], *, draw: str) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(name: str, activation: Tensor) -> None:
        if activation.shape[0] != len(rows):
            strangers[name] = other_rows(activation, len(rows))
        elif name != INPUT:
            kept[name] = room_for(activation, len(rows)).copy_(activation)
            dtypes[name] = activation.dtype

    dtypes: dict[str, torch.dtype] = {}
    inputs = take_rows(block.inputs, rows, num_rows=len(block))
    forward.run(block, inputs, keep, draw=draw)
    # Half precision is kept as float32; what was rounded more coarsely is compared more coarsely.
    return {name: x.to(dtypes[name]) for name, x in kept.items()}


def _beyond_rounding(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """The layers at which an image has moved by more than rounding."""
    found: list[str] = []
    for name, activation in after.items():
        if name in before and before[name].shape == activation.shape:
            clean = before[name].double()
            moved = squared_distance(activation.double(), clean)
            size = squared_norm(clean)
            tolerance = torch.finfo(activation.dtype).eps * _ROUNDINGS.get(activation.dtype, _OTHERS)
            known = moved.isfinite() & size.isfinite()
            if bool((moved > tolerance**2 * size)[known].any()):
                found.append(name)
    return found


def _sensitivity(clean: Tensor, first: Tensor, second: Tensor) -> float:
    """How far two passes lie apart, in the unit of a sensitivity; 0 where images do not differ."""
    moved = squared_distance(first.double(), second.double()).nanmean()
    apart = 2 * between_image_deviation(clean.double()).nanmean()
    return float((moved / apart).sqrt()) if apart > 0 else 0.0
