"""Forward passes: the one place that runs the model, with its hooks, its random stream and the axis of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.segments import slices
from kornia_lightning_probe.functional.distances import upcast
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import image_entries, map_tensors
from kornia_lightning_probe.metrics import Site
from kornia_lightning_probe.model.outputs import find_scores, why_no_scores
from kornia_lightning_probe.model.recorder import ActivationRecorder, named_entries
from kornia_lightning_probe.model.undisturbed import default_dtype
from kornia_lightning_probe.randomness import reseed, stable_seed

INPUT = "input"
OUTPUT = "output"

Sink = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Subject:
    """The model under probe, and how it is called.

    Args:
        model: the module whose flags, buffers and hooks are put back.
        forward: takes inputs on ``device`` and returns the model's output.
        layers: the chosen modules by name.
        device: where the model is.
        exact: those of the layers that were named exactly, and so must fire.
        embedding: the layer called the embedding; None is the last layer that isn't the output itself.
    """

    model: nn.Module
    forward: Callable[[Any], Any]
    layers: dict[str, nn.Module]
    device: torch.device
    exact: frozenset[str] = frozenset()
    embedding: str | None = None


class Passes:
    """Runs a model on rows of blocks and hands every activation, with its images in front, to a sink.

    Hooks live from entering the ``with`` to leaving it, and the default dtype is float32 there but for the forward. The
    pixels come first, as the layer ``input``; class scores come last, as ``output``, where they are wanted and the
    output is such.

    Args:
        subject: the model.
        findings: where it is noted what is no activation of images.
        seed: of the random stream that each pass finds.
        batch_size: at most so many images in a pass.
        wants_scores: whether class scores are of use.
        other_targets: what the dataset gives in the place of labels, as a text.
        total: the number of passes to come, for a bar; None shows none.
    """

    def __init__(
        self,
        subject: Subject,
        findings: Findings,
        *,
        seed: int,
        batch_size: int,
        wants_scores: bool = False,
        other_targets: str = "",
        total: int | None = None,
    ) -> None:
        self.subject = subject
        self.batch_size = batch_size
        self.wants_scores = wants_scores
        self._dtypes: set[torch.dtype] = set()
        self._findings = findings
        self._seed = seed
        self._other_targets = other_targets
        self._total = total
        self._recorder = ActivationRecorder(subject.layers, receive=self._receive)
        self._sink: Sink = ignore
        self._expected = 0
        self._known: frozenset[str] | None = None
        self._last: Tensor | None = None
        self._ends_in_output = False
        self._dtype = torch.get_default_dtype()
        self._kind = subject.device.type

    @property
    def dtypes(self) -> list[str]:
        """The dtypes of activations that were seen, by name."""
        return sorted(str(dtype).removeprefix("torch.") for dtype in self._dtypes)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self._recorder)
            bar = tqdm(total=self._total, desc="probe", unit="pass", disable=self._total is None, leave=False)
            self._bar = opening.enter_context(bar)
            opening.enter_context(default_dtype(torch.float32))
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink, self._last = ignore, None
        self._open.close()

    def run(self, block: Block, inputs: Any, sink: Sink, *, draw: str, num_rows: int) -> Any:
        """Run the model once.

        Args:
            block: the block that the rows are of; its number seeds the random stream.
            inputs: the model's inputs.
            sink: gets each layer's name and activation inside the hook; it may not keep or change the tensor.
            draw: names the stream, next to the block.
            num_rows: how many images go in.

        Returns:
            The model's output.
        """
        self._sink, self._expected = sink, num_rows
        self._recorder.reset()
        reseed(stable_seed(self._seed, "forward", block.index, draw), device=self.subject.device)
        self._receive(INPUT, _pixels(inputs, block.image_keys))
        with default_dtype(self._dtype):
            output = self.subject.forward(inputs)
        if self.wants_scores:
            self._receive_scores(output, block)
        self._sink = ignore
        self._bar.update()
        return output

    def expect_more(self, passes: int) -> None:
        """Have the bar wait for passes that its total did not count."""
        if self._total is not None:
            self._bar.total += passes
            self._bar.refresh()

    def run_clean(self, block: Block, sink: Callable[[str, Tensor, slice], None], *, draw: str = "clean") -> None:
        """Run the model on all rows of a block; the sink is told which rows an activation is of."""
        for rows in slices(len(block), self.batch_size):
            # A copy, since a model may write into its input.
            inputs = map_tensors(block.rows(rows.start, rows.stop), torch.clone)
            output = self.run(
                block,
                inputs,
                partial(_with_rows, sink, rows),
                draw=draw,
                num_rows=rows.stop - rows.start,
            )
            if self._known is None:
                self._ends_in_output, self._last = _is_output(self._last, output), None

    def keep_clean(self, block: Block, *, instead_of: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies of a block's clean activations by name, in order of execution; half precision as float32.

        Args:
            block: the block.
            instead_of: the copies of an earlier block that nobody needs any longer; they are overwritten where they are
                large enough, since memory that is in use already is much faster than memory that is asked for anew.
        """
        kept: dict[str, Tensor] = {}
        old = instead_of or {}

        def keep(name: str, activation: Tensor, rows: slice) -> None:
            if name not in kept:
                kept[name] = _room(activation, len(block), old.get(name))
            kept[name][rows].copy_(activation)

        self.run_clean(block, keep)
        return kept

    def scout(self, block: Block) -> dict[str, Tensor]:
        """The first pass of all: clean activations of a block, and which layers there are from now on.

        A pass over two of its images shows which activations have images in front by chance only.

        Raises:
            ValueError: where an exactly named layer gave no activation, or none did.
        """
        activations = self.keep_clean(block)
        if len(block) > 2:
            self._expected_again(block)
        for name, reason in self._recorder.left_out.items():
            self._findings.leave_out(name, reason)
        kept = {name: x for name, x in activations.items() if name not in self._findings.left_out}
        fired = [name for name in kept if name not in (INPUT, OUTPUT)]
        self._findings.layers_fired(fired, chosen=self.subject.layers, exact=self.subject.exact)
        self._known = frozenset(kept)
        self.wants_scores = OUTPUT in kept
        return kept

    def sites(self, activations: dict[str, Tensor], block: Block) -> list[Site]:
        """The places where a model is compared that was scouted on this block: pixels, layers, class scores.

        Raises:
            ValueError: where the embedding is none of them.
        """
        layers = [name for name in activations if name not in (INPUT, OUTPUT)]
        embedding = self.subject.embedding or layers[-2 if self._ends_in_output and len(layers) > 1 else -1]
        if embedding not in layers:
            raise ValueError(f"embedding={embedding!r} is none of the layers that gave an activation: {layers}")
        height, width = block.images[0].shape[-2:]
        self._findings.facts["embedding"] = embedding
        self._findings.facts["shapes"] = {name: list(x.shape[1:]) for name, x in activations.items()}
        return [
            Site(
                name,
                index,
                tuple(activation.shape[1:]),
                "input" if name == INPUT else "output" if name == OUTPUT else "layer",
                is_embedding=name == embedding,
                label_shape=None if block.labels is None else tuple(block.labels.shape[1:]),
                image_size=(height, width),
            )
            for index, (name, activation) in enumerate(activations.items())
        ]

    def _expected_again(self, block: Block) -> None:
        inputs = map_tensors(block.rows(0, 2), torch.clone)
        self.run(block, inputs, ignore, draw="axis", num_rows=2)

    def _receive(self, name: str, activation: Tensor) -> None:
        if activation.shape[0] != self._expected:
            self._findings.leave_out(
                name, f"its first axis has {activation.shape[0]} entries where {self._expected} images went in"
            )
            return
        if self._known is None:
            if name not in (INPUT, OUTPUT):
                # Held until the next, so that its memory can't become the output's.
                self._last = activation
                self._dtypes.add(activation.dtype)
        elif name not in self._known:
            self._findings.leave_out(name, "it ran on some images only, and not on the first block")
            return
        # The forward's precision, which a Lightning plugin may set in it, is not that of what is measured.
        if torch.is_autocast_enabled(self._kind) or torch.get_default_dtype() != torch.float32:
            with torch.autocast(self._kind, enabled=False), default_dtype(torch.float32):
                self._sink(name, activation)
        else:
            self._sink(name, activation)

    def _receive_scores(self, output: Any, block: Block) -> None:
        scores = find_scores(output)
        if self._known is None:
            shape, labels = tuple(block.images[0].shape[1:]), block.labels
            reason = why_no_scores(scores, image_shape=shape, labels=labels, other_targets=self._other_targets)
            if reason:
                self._findings.leave_out(OUTPUT, reason)
                self.wants_scores = False
        if self.wants_scores and scores is not None:
            self._receive(OUTPUT, scores.detach())


def _with_rows(sink: Callable[[str, Tensor, slice], None], rows: slice, name: str, activation: Tensor) -> None:
    sink(name, activation, rows)


def _room(activation: Tensor, count: int, old: Tensor | None) -> Tensor:
    """A tensor for ``count`` rows such as those of an activation, float32 where they are half precision."""
    like = upcast(activation[:0])
    if (
        old is not None
        and len(old) >= count
        and (old.shape[1:], old.dtype, old.device) == (like.shape[1:], like.dtype, like.device)
    ):
        return old[:count]
    if len(activation) == count:
        return torch.empty_like(activation, dtype=like.dtype)
    is_last = activation.ndim == 4 and activation.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_last else torch.contiguous_format
    return torch.empty((count, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)


def ignore(_name: str, _activation: Tensor) -> None:
    """A sink that does nothing."""


def _pixels(inputs: Any, keys: tuple[str | int, ...]) -> Tensor:
    entries = image_entries(inputs, keys)
    return entries[0] if len(entries) == 1 else torch.cat([entry.flatten(1) for entry in entries], 1)


def _is_output(activation: Tensor | None, output: Any) -> bool:
    return activation is not None and any(
        isinstance(entry, Tensor) and entry.data_ptr() == activation.data_ptr() and entry.shape == activation.shape
        for _, entry in named_entries(OUTPUT, output)
    )
