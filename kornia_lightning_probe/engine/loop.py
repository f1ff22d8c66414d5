"""The one loop: a scout, then each block of this process through the model, then one sum over all processes.

What is looked at is a visitor's: it is opened with what the scout found, sees each block with its clean activations,
and has tables to be summed. A probe that needs gradients through bank and model is one more visitor, with ``graph``.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from kornia_lightning_probe.engine.memory import PassSize, clean_bytes_told, is_out_of_memory
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Forward, Passes, ignore, rows_of
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.scout import Scout, Scouted, scout_passes
from kornia_lightning_probe.engine.sighting import FirstLooks, StaleLookError, agreed_targets
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import join_rows
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.model.undisturbed import undisturbed
from kornia_lightning_probe.randomness import stable_seed
from kornia_lightning_probe.wording import listed


class Visitor(Protocol):
    """What looks at the blocks that the loop brings.

    Attributes:
        wants_scores: whether it looks at class scores.
    """

    wants_scores: bool

    def opening_passes(self, num_images: int, size: int) -> int:
        """How many passes :meth:`open` runs with a first block of so many images, and a size of passes."""
        ...

    def block_passes(self, num_images: int, size: int) -> int:
        """How many passes :meth:`see` runs for a block of so many images, likewise."""
        ...

    def check(self) -> None:
        """Refuse what can't be worked on, before the model runs."""
        ...

    def open(self, scouted: Scouted, passes: Passes) -> None:
        """Get ready, on every process, also one that owns no block; anew where all begins again."""
        ...

    def see(self, block: Block, clean: Mapping[str, Tensor], passes: Passes) -> None:
        """Look at a block.

        Args:
            block: the block, on the model's device.
            clean: its clean activations by layer; they may be written to, and are overwritten afterwards.
            passes: for passes of its own.
        """
        ...

    def tables(self) -> list[Tensor]:
        """Tables to be summed over all processes: each holds its own cells, and zeros elsewhere."""
        ...

    def drop(self, layers: Sequence[str]) -> None:
        """Leave out layers that can't be compared after all."""
        ...

    def let_go(self) -> None:
        """Free all that was made for the blocks; :meth:`open` makes it anew."""
        ...


@dataclass(frozen=True)
class Route:
    """The way of a loop.

    Args:
        images: the probe images, with the blocks of this process.
        size: how many images go into one forward pass.
        seed: of the random stream that a forward pass finds, for models that draw in eval mode.
        progress: whether to show a bar.
        world: the other processes.
        graph: whether the activations of a visitor's own passes keep their graph; clean ones never do.
        looks: what has been seen of the model, of these images, before.
        asks_for_scores: whether measures of class scores were asked for by name.
    """

    images: ProbeImages
    size: PassSize = field(default_factory=PassSize)
    seed: int = 0
    progress: bool = False
    world: World = field(default_factory=World)
    graph: bool = False
    looks: FirstLooks = field(default_factory=FirstLooks)
    asks_for_scores: bool = False


def run_loop(subject: Subject, route: Route, visitor: Visitor, findings: Findings) -> None:
    """Bring all blocks of this process before a visitor, and sum its tables over all processes, in place.

    Raises:
        ValueError: for a layer that was named exactly and gave no activation, an unknown embedding.
        RuntimeError: where another process has failed or sees different layers, or the model changes its parameters.
    """
    started = time.perf_counter()
    world, images = route.world, route.images
    have_met = False
    try:
        with undisturbed(subject.model, device=subject.device, graph=route.graph):
            spoilt = _work_with_looks(subject, route, visitor, findings)
            world.meet("done")
            have_met = True
            counts = torch.tensor([float(bool(why)) for why in spoilt.values()])
            tables = [*visitor.tables(), counts, images.fingerprints]
            sums = world.sum_together(tables, device=subject.device, dtype=accumulation_dtype(subject.device))
    except Exception as error:
        # Where passes are collective the others are in one, and what is said here would be taken for a part of it.
        if not have_met and not world.lockstep:
            world.fail(error)
        raise
    for table, total in zip(tables[:-2], sums[:-2], strict=True):
        table.copy_(total)
    reasons = {
        name: why or "its activations have other sizes on another process"
        for (name, why), count in zip(spoilt.items(), sums[-2].tolist(), strict=True)
        if count
    }
    findings.spoilt(reasons)
    visitor.drop(list(reasons))
    findings.facts |= {
        "num_images": images.num_images,
        "num_blocks": images.num_blocks,
        "image_ids": list(images.image_ids),
        "content_hash": ProbeImages.content_hash(sums[-1]),
        "content_hash_by_number": images.content_hash_by_number(sums[-1]),
        "notes": list(images.notes),
        "seed": route.seed,
        "batch_size": route.size.now,
        "device": str(subject.device),
        "world_size": world.size,
        "seconds": time.perf_counter() - started,
    }


def _work_with_looks(subject: Subject, route: Route, visitor: Visitor, findings: Findings) -> dict[str, str]:
    """Work with what was seen of the model before; anew where it does otherwise now, or memory runs out."""
    noted = copy.deepcopy(vars(findings))
    tried: list[int] = []
    while True:
        try:
            return _work(subject, route, visitor, findings)
        except StaleLookError:
            # The same on every process.
            route.looks.forget()
            remark = ""
        except Exception as error:
            if not _may_halve(error, route):
                if tried and is_out_of_memory(error):
                    error.add_note(f"batch_size='auto': with {listed(tried)} images in a pass it had run out before")
                raise
            tried.append(route.size.now)
            route.size.halve()
            remark = (
                f"batch_size='auto': memory ran out with {tried[-1]} images in a pass, so that {route.size.now} go "
                "into one"
            )
        # Behind the error, whose frames have held all of it; torch's own imports may hold some of these.
        visitor.let_go()
        gc.collect()
        torch.cuda.empty_cache()
        vars(findings).update(copy.deepcopy(noted))
        if remark:
            findings.warn(remark, kind="memory ran out in a pass")


def _may_halve(error: Exception, route: Route) -> bool:
    """Whether half as many images in a pass may help.

    Others would wait for a process that begins anew, so that of several none does; a first look is over two images.
    """
    if route.world.size > 1 or route.looks.is_first or not is_out_of_memory(error):
        return False
    return route.size.can_be_halved


def _work(subject: Subject, route: Route, visitor: Visitor, findings: Findings) -> dict[str, str]:
    """Bring the blocks before the visitor; says of each layer why it can't be compared after all, or nothing."""
    images, world = route.images, route.world
    visitor.check()
    first = images.scout.to(subject.device)
    targets = agreed_targets(images, world)
    look = route.looks.of(subject, first, seed=route.seed, targets=targets, is_asked_for=route.asks_for_scores)
    subject = look.sighting.choose(subject)
    findings.passed_over(look.sighting.passed_over(subject))
    choice = look.choice if visitor.wants_scores else None
    if choice is not None and choice.scores is None and choice.remark and not images.labels_given:
        # Where labels= is given, it is said of these.
        findings.warn(choice.remark)
    size = route.size
    total = scout_passes(len(first), size.now) if route.progress else None
    with (
        clean_bytes_told(findings),
        Forward(subject, seed=route.seed, total=total, graph=route.graph) as forward,
    ):
        scouted = Scout(forward, findings, size.now, choice).run(first)
        route.looks.require_same([site.name for site in scouted.sites], forward.shapes)
        world.meet(f"{stable_seed(repr(scouted.sites))} for {len(scouted.sites)} layers", what="the layers that run")
        passes = _passes(forward, scouted, route, visitor, findings)
        _bring_blocks(scouted, passes, route, visitor)
    return {site.name: passes.spoilt.get(site.name, "") for site in scouted.sites}


def _passes(forward: Forward, scouted: Scouted, route: Route, visitor: Visitor, findings: Findings) -> Passes:
    """Passes over the layers that a scout has found, of as many images as are wished for or fit."""
    first = scouted.block
    batch_size = route.size.settle(
        partial(_pass_copies, forward, first),
        len(first),
        views=visitor.block_passes(len(first), len(first)),
        device=forward.subject.device,
        lockstep=route.world.lockstep or scouted.whole_blocks,
        findings=findings,
    )
    return Passes(
        forward,
        {site.name: site.shape for site in scouted.sites},
        findings,
        batch_size=batch_size,
        whole_blocks=scouted.whole_blocks,
        scores=scouted.scores,
    )


def _bring_blocks(scouted: Scouted, passes: Passes, route: Route, visitor: Visitor) -> None:
    """Bring the blocks of this process before the visitor, and keep step where all must run equally many passes."""
    images, world = route.images, route.world
    counts = [count_passes(images.deal, visitor, passes.size, rank, world.size) for rank in range(world.size)]
    passes.forward.expect_more(counts[world.rank])
    visitor.open(scouted, passes)
    clean = scouted.activations
    for block in images.blocks:
        placed = block.to(passes.forward.subject.device)
        if block.index > 0:
            clean = passes.keep_clean(placed, instead_of=clean)
        visitor.see(placed, clean, passes)
    if world.lockstep:
        _keep_step(passes, scouted.block, max(counts) - counts[world.rank])


def _pass_copies(forward: Forward, block: Block, count: int) -> None:
    """Run the model on so many copies of a block at once, and look at nothing."""
    forward.expect_more(1)
    with torch.no_grad():
        forward.run(block, join_rows([block.inputs] * count), ignore, draw="size")


def count_passes(
    deal: Sequence[range], visitor: Visitor, size: Callable[[int], int], rank: int = 0, world_size: int = 1
) -> int:
    """How many forward passes a process runs behind the scout's: the visitor's own, and those over its blocks.

    Args:
        deal: the rows of every block of all processes.
        visitor: what looks at them.
        size: how many images go into one pass, of a block of so many.
        rank: the process; its blocks are those of ``rank`` modulo ``world_size``, and the scout's is block 0.
        world_size: the number of processes.
    """
    passes = visitor.opening_passes(len(deal[0]), size(len(deal[0])))
    for index in range(rank, len(deal), world_size):
        num_images = len(deal[index])
        passes += visitor.block_passes(num_images, size(num_images))
        if index > 0:
            passes += -(-num_images // size(num_images))
    return passes


def _keep_step(passes: Passes, block: Block, count: int) -> None:
    """Run as many passes as the busiest process, where passes are collective."""
    with torch.no_grad():
        for _ in range(count):
            passes.run(block, rows_of(block, slice(0, len(block))), ignore, draw="idle", num_rows=len(block))
