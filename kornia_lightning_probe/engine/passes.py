"""Forward passes: the one place that runs the model, with its hooks and its random stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kornia_lightning_probe.activations.site import INPUT, OUTPUT
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.segments import slices
from kornia_lightning_probe.functional.distances import upcast
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import image_entries, map_tensors
from kornia_lightning_probe.model.recorder import ActivationRecorder, belongs
from kornia_lightning_probe.model.scores import Scores
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.model.undisturbed import default_dtype
from kornia_lightning_probe.randomness import reseed, stable_seed

#: Gets a layer's name and activation inside the hook; it may not keep or change the tensor.
Sink = Callable[[str, Tensor], None]


class Forward:
    """A model with its hooks open, run once at a time; every activation goes to whoever asked for the pass.

    Hooks live from entering the ``with`` to leaving it, and the default dtype is float32 there but for the forward. The
    pixels come first, as the layer ``input``.

    Args:
        subject: the model.
        seed: of the random stream that each pass finds.
        total: the number of passes to come, for a bar; None shows none.
        graph: whether activations keep their graph, for gradients.

    Attributes:
        subject: as given.
        graph: likewise.
        left_out: why an output is no activation, by its name, see the recorder.
        shapes: by layer, the shape of its last activation as the model gave it.
    """

    def __init__(self, subject: Subject, *, seed: int, total: int | None = None, graph: bool = False) -> None:
        self.subject = subject
        self.graph = graph
        self._seed = seed
        self._total = total
        self._recorder = ActivationRecorder(subject.layers, receive=self._receive, graph=graph, only=subject.only)
        self.left_out = self._recorder.left_out
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._sink: Sink = ignore
        self._dtype = torch.get_default_dtype()
        self._kind = subject.device.type
        self._keys: tuple[str | int, ...] = ()

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
        self._sink = ignore
        self._open.close()

    def run(self, block: Block, inputs: Any, sink: Sink, *, draw: str) -> Any:
        """Run the model once.

        Args:
            block: the block that the rows are of; its number seeds the random stream.
            inputs: the model's inputs.
            sink: gets every activation.
            draw: names the stream, next to the block.

        Returns:
            The model's output.
        """
        self._sink = sink
        self._keys = block.image_keys
        self._recorder.reset()
        reseed(stable_seed(self._seed, "forward", block.index, draw), device=self.subject.device)
        self._receive(INPUT, _pixels(inputs, block.image_keys))
        with default_dtype(self._dtype):
            output = self.subject.forward(inputs)
        self._sink = ignore
        self._bar.update()
        return output

    def expect_more(self, passes: int) -> None:
        """Have the bar wait for passes that its total did not count."""
        if self._total is not None:
            self._bar.total += passes
            self._bar.refresh()

    def _receive(self, name: str, activation: Tensor) -> None:
        # The forward's precision, which a Lightning plugin may set in it, is not that of what is measured.
        if torch.is_autocast_enabled(self._kind) or torch.get_default_dtype() != torch.float32:
            with torch.autocast(self._kind, enabled=False), default_dtype(torch.float32):
                self._hand_on(name, activation)
        else:
            self._hand_on(name, activation)

    def _hand_on(self, name: str, activation: Tensor) -> None:
        self.shapes[name] = activation.shape
        rows = self.subject.rows.get(name)
        if rows is None:
            self._sink(name, activation)
            return
        for given, part in zip(self.names_of(name), rows.unfold(activation), strict=True):
            self._sink(given, part)

    def names_of(self, name: str) -> list[str]:
        """The names under which an activation is handed on: one for each image of several that lie in it."""
        rows = self.subject.rows.get(name)
        if rows is None or len(rows.entries) < 2:
            return [name]
        return [f"{name}[{self._entry_name(entry)}]" for entry in rows.entries]

    def _entry_name(self, entry: int) -> str:
        """How an image of several is called: by its key, or image0 and image1 of a tuple."""
        key = self._keys[entry]
        return f"image{key}" if isinstance(key, int) else str(key)


class Passes:
    """Passes over rows of blocks, of the layers that a scout has found, with images in front.

    Class scores come last, as the layer ``output``, where they are among these layers.

    Args:
        forward: the model.
        shapes: by layer, the shape of one image's activation; what else fires, or has other rows than went in, is left
            out and noted.
        findings: where that is noted.
        batch_size: at most so many images in a pass.
        whole_blocks: whether every pass is of one whole block, as for a model whose images touch each other.
        scores: what of the output is class scores; None where nothing is.

    Attributes:
        spoilt: layers whose activations have come in other sizes, and how; what came of them is to be left out.
    """

    def __init__(
        self,
        forward: Forward,
        shapes: Mapping[str, tuple[int, ...]],
        findings: Findings,
        *,
        batch_size: int,
        whole_blocks: bool = False,
        scores: Scores | None = None,
    ) -> None:
        self.forward = forward
        self.spoilt: dict[str, str] = {}
        self._shapes = shapes
        self._findings = findings
        self._batch_size = batch_size
        self._whole_blocks = whole_blocks
        self._scores = scores

    def size(self, num_images: int) -> int:
        """How many images go into one pass, of a block of so many."""
        return num_images if self._whole_blocks else self._batch_size

    def run(self, block: Block, inputs: Any, sink: Sink, *, draw: str, num_rows: int) -> Any:
        """Run the model once.

        Args:
            block: the block that the rows are of.
            inputs: the model's inputs.
            sink: gets the activations.
            draw: names the random stream, next to the block.
            num_rows: how many images go in.

        Returns:
            The model's output.

        Raises:
            ValueError: where an exactly named layer's activation has another shape than it had on the first block.
        """

        def receive(name: str, activation: Tensor) -> None:
            if self._admits(name, activation, num_rows):
                sink(name, activation)

        output = self.forward.run(block, inputs, receive, draw=draw)
        if self._scores is not None and OUTPUT in self._shapes:
            scores = self._scores.of(output)
            if scores is not None:
                receive(OUTPUT, scores if self.forward.graph else scores.detach())
        return output

    def run_clean(self, block: Block, sink: Callable[[str, Tensor, slice], None], *, draw: str = "clean") -> None:
        """Run the model on all rows of a block; the sink is told which rows an activation is of."""
        for rows in slices(len(block), self.size(len(block))):
            told = partial(_with_rows, sink, rows)
            self.run(block, rows_of(block, rows), told, draw=draw, num_rows=rows.stop - rows.start)

    def keep_clean(self, block: Block, *, instead_of: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies of a block's clean activations by name, in order of execution; half precision as float32.

        They have no graph, whatever the forward keeps, since their memory is used again.

        Args:
            block: the block.
            instead_of: the copies of an earlier block that nobody needs any longer; they are overwritten where they are
                large enough, since memory that is in use already is much faster than memory that is asked for anew.
        """
        kept: dict[str, Tensor] = {}
        old = instead_of or {}

        def keep(name: str, activation: Tensor, rows: slice) -> None:
            if name not in kept:
                kept[name] = room_for(activation, len(block), old.get(name))
            kept[name][rows].copy_(activation)

        with torch.no_grad():
            self.run_clean(block, keep)
        return kept

    def _admits(self, name: str, activation: Tensor, num_rows: int) -> bool:
        if activation.shape[0] != num_rows:
            self._findings.leave_out(name, other_rows(activation, num_rows))
            return False
        if name not in self._shapes:
            self._findings.leave_out(name, "it ran on some images only, and not on the first block")
            return False
        if tuple(activation.shape[1:]) != self._shapes[name]:
            self._spoil(name, other_shape(activation, self._shapes[name]))
            return False
        return True

    def _spoil(self, name: str, reason: str) -> None:
        if any(belongs(name, layer) for layer in self.forward.subject.exact):
            raise ValueError(f"layer {name!r}: {reason}; leave it out, or give the probe images of one size")
        self.spoilt.setdefault(name, reason)


def rows_of(block: Block, rows: slice) -> Any:
    """The model's inputs for some rows of a block: a copy, since a model may write into its input."""
    return map_tensors(block.rows(rows.start, rows.stop), torch.clone)


def other_rows(activation: Tensor, num_rows: int) -> str:
    """Why an activation has no axis of images, as a text."""
    return f"its first axis has {activation.shape[0]} entries where {num_rows} images went in"


def other_shape(activation: Tensor, shape: tuple[int, ...]) -> str:
    """Why an activation can't be compared with others of a layer, as a text."""
    return (
        f"it gave {tuple(activation.shape[1:])} for each image and {shape} for others before, and activations can only "
        "be compared at one size"
    )


def room_for(activation: Tensor, count: int, old: Tensor | None = None) -> Tensor:
    """A tensor for ``count`` rows such as those of an activation, float32 where they are half precision.

    Args:
        activation: (B, ...).
        count: how many rows.
        old: a tensor that nobody needs any longer; its memory is taken where it fits.
    """
    like = upcast(activation[:0])
    if old is not None and len(old) >= count:
        kinds = [(tensor.shape[1:], tensor.dtype, tensor.device) for tensor in (old, like)]
        if kinds[0] == kinds[1]:
            return old[:count]
    if len(activation) == count:
        return torch.empty_like(activation, dtype=like.dtype)
    is_last = activation.ndim == 4 and activation.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_last else torch.contiguous_format
    return torch.empty((count, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)


def ignore(_name: str, _activation: Tensor) -> None:
    """A sink that does nothing."""


def _with_rows(sink: Callable[[str, Tensor, slice], None], rows: slice, name: str, activation: Tensor) -> None:
    sink(name, activation, rows)


def _pixels(inputs: Any, keys: tuple[str | int, ...]) -> Tensor:
    entries = image_entries(inputs, keys)
    if len(entries) == 1:
        return entries[0]
    return torch.cat([entry.flatten(1) for entry in entries], 1)
