"""The first pass of all, on every process: which layers there are, and where the images are in what they put out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.activations.site import INPUT, OUTPUT, Site
from kornia_lightning_probe.engine.company import see_in_company
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Forward, other_rows, other_shape, room_for, rows_of
from kornia_lightning_probe.engine.segments import slices
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.model.linear_head import head_space
from kornia_lightning_probe.model.recorder import named_entries
from kornia_lightning_probe.model.scores import Choice, Scores, are_of_pairs


@dataclass(frozen=True)
class Scouted:
    """What a scout has found.

    Args:
        block: the first block, on the model's device.
        activations: its clean activations by layer, in order of execution; half precision as float32.
        sites: the pixels, the layers, and the output where it is class scores.
        dtypes: in which the model has computed them.
        whole_blocks: whether images of a batch touch each other, so that every pass must be of one whole block.
        scores: what of the output is class scores; None where nothing is, or nobody wants them.
    """

    block: Block
    activations: dict[str, Tensor]
    sites: Sequence[Site]
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    whole_blocks: bool = False
    scores: Scores | None = None


@dataclass
class Scout:
    """Runs a model for the first time.

    Args:
        forward: the model, its hooks open.
        findings: where it is noted what is no activation of images.
        batch_size: at most so many images in a pass.
        choice: what of the output is class scores; None where nobody wants them.
    """

    forward: Forward
    findings: Findings
    batch_size: int
    choice: Choice | None = None

    @torch.no_grad()
    def run(self, block: Block) -> Scouted:
        """See the first block, and some of its images in other company.

        Raises:
            ValueError: where an exactly named layer gave no activation, none did, or the embedding is none of them.
        """
        ends_in_output = self._see_all(block, self.batch_size)
        company = see_in_company(self.forward, block, self._kept)
        for name, reason in company.strangers.items():
            self.findings.leave_out(name, reason)
        whole_blocks = bool(company.touching)
        self.findings.noise(company.noise)
        if whole_blocks:
            self.findings.touching(company.touching)
            self._see_all(block, len(block))
        for name, reason in self.forward.left_out.items():
            self.findings.leave_out(name, reason)
        kept = {name: x for name, x in self._kept.items() if name not in self.findings.left_out}
        layers = [name for name in kept if name not in (INPUT, OUTPUT)]
        subject = self.forward.subject
        self.findings.layers_fired(layers, chosen=subject.layers, exact=subject.exact)
        embedding = self._embedding(layers, ends_in_output)
        scores = self._settled(kept)
        self.findings.facts["embedding"] = embedding
        self.findings.facts["shapes"] = {name: list(x.shape[1:]) for name, x in kept.items()}
        self.findings.facts["activation_dtypes"] = sorted(
            {str(dtype).removeprefix("torch.") for dtype in self._dtypes.values()}
        )
        folded = {name for name, rows in subject.rows.items() if rows.is_folded}
        found = _sites(kept, block, embedding, folded=folded, cells=self._cells())
        sites = [self._with_head(site, kept) for site in found]
        grids = {site.name: site.cells.grid.facts() for site in sites if isinstance(site.cells, Cells)}
        self.findings.facts["grids"] = grids
        return Scouted(block, kept, sites, self._dtypes, whole_blocks=whole_blocks, scores=scores)

    def _cells(self) -> dict[str, Cells | str]:
        """Where the cells lie, by the names under which activations are handed on."""
        found = self.forward.subject.cells.items()
        return {given: cells for name, cells in found for given in self.forward.names_of(name)}

    def _with_head(self, site: Site, kept: Mapping[str, Tensor]) -> Site:
        """The embedding's site with what a linear head reads of it; others as they are."""
        if not site.is_embedding or OUTPUT not in kept:
            return site
        for readout in readouts_of(site):
            if readout.site.representation == "pooled":
                features = readout.take(kept[site.name])
                model = self.forward.subject.model
                halves = {self._dtypes.get(site.name), self._scores_dtype} & {torch.float16, torch.bfloat16}
                space = head_space(model, features, kept[OUTPUT], part=readout.site.part, is_coarse=bool(halves))
                if space is not None:
                    return replace(site, head=space)
        return site

    def _embedding(self, layers: Sequence[str], ends_in_output: bool) -> str:
        """The activation that was asked for, else the last one in front of the head, else that before the output."""
        subject = self.forward.subject
        wanted = subject.embedding or subject.front
        if wanted is None:
            return _before_output(layers, ends_in_output)
        found = [name for name in layers if name == wanted or name.startswith(f"{wanted}[")]
        if found:
            return found[-1]
        if subject.embedding is not None:
            raise ValueError(f"embedding={wanted!r} is none of the layers that gave an activation: {list(layers)}")
        instead = _before_output(layers, ends_in_output)
        self.findings.warn(
            f"the layer in front of the head, {wanted!r}, is left out ({self.findings.left_out.get(wanted)}), so that "
            f"{instead!r} is taken for the embedding; name another one with embedding="
        )
        return instead

    def _see_all(self, block: Block, size: int) -> bool:
        """Pass a whole block, so many images at once; whether the last layer's activation is the output itself."""
        self._kept: dict[str, Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._last: Tensor | None = None
        self._scores_dtype: torch.dtype | None = None
        self.findings.clean_bytes = 0
        output: Any = None
        for rows in slices(len(block), size):
            output = self._see(block, rows)
        ends_in_output = _is_output(self._last, output)
        self._last = None
        return ends_in_output

    def _see(self, block: Block, rows: slice) -> Any:
        count = rows.stop - rows.start

        def receive(name: str, activation: Tensor) -> None:
            if activation.numel() == 0:
                self.findings.leave_out(name, f"it is empty, {tuple(activation.shape)}")
            elif activation.shape[0] != count:
                self.findings.leave_out(name, other_rows(activation, count))
            else:
                self._keep(name, activation, rows, len(block))

        output = self.forward.run(block, rows_of(block, rows), receive, draw="clean")
        if self.choice is not None and OUTPUT not in self.findings.left_out:
            self._see_scores(self.choice, output, receive)
        return output

    def _keep(self, name: str, activation: Tensor, rows: slice, num_images: int) -> None:
        if name not in (INPUT, OUTPUT):
            # Held until the next, so that its memory can't become the output's.
            self._last = activation
            self._dtypes[name] = activation.dtype
        if name not in self._kept:
            room = self._kept[name] = room_for(activation, num_images)
            self.findings.clean_bytes += room.nbytes
        shape = tuple(self._kept[name].shape[1:])
        if tuple(activation.shape[1:]) != shape:
            self.findings.leave_out(name, other_shape(activation, shape))
            return
        self._kept[name][rows].copy_(activation)

    def _see_scores(self, choice: Choice, output: Any, receive: Any) -> None:
        scores = choice.scores.part_of(output) if choice.scores else None
        reason = choice.reason
        if scores is None:
            reason = reason or "the model gave none after its first forward"
        elif are_of_pairs(tuple(scores.shape), choice.shape):
            reason = "it has one number for each pair of images in a batch (B, B), so it is no class scores"
        if reason or scores is None:
            self.findings.leave_out(OUTPUT, reason)
        else:
            self._scores_dtype = scores.dtype
            receive(OUTPUT, scores.detach())

    def _settled(self, kept: dict[str, Tensor]) -> Scores | None:
        """What of the output is class scores, once all images of a block have told of what kind; and what they are."""
        if self.choice is None or self.choice.scores is None or OUTPUT not in kept:
            return None
        scores = self.choice.scores.settled(kept[OUTPUT])
        kept[OUTPUT] = scores.as_classes(kept[OUTPUT])
        self.findings.facts["output"] = scores.name
        self.findings.facts["output_kind"] = scores.kind
        if self.choice.remark:
            self.findings.warn(self.choice.remark)
        return scores


def scout_passes(num_images: int, batch_size: int) -> int:
    """How many passes a scout of a block of so many images runs."""
    return len(slices(num_images, batch_size)) + 1


def _sites(
    kept: dict[str, Tensor], block: Block, embedding: str, *, folded: Container[str], cells: Mapping[str, Cells | str]
) -> list[Site]:
    height, width = block.images[0].shape[-2:]
    pixels = _cells_of_pixels(block)
    cells = {INPUT: pixels, **cells}
    if _are_as_many(cells.get(OUTPUT), pixels):
        # What is said of each pixel lies there, wherever a network that was trained to say it looks.
        cells[OUTPUT] = pixels
    depth = block.layout.depth(block.images[0])
    label_shape = None if block.labels is None else tuple(block.labels.shape[1:])
    kinds: dict[str, Literal["input", "output"]] = {INPUT: "input", OUTPUT: "output"}
    return [
        Site(
            name,
            index,
            tuple(activation.shape[1:]),
            kinds.get(name, "layer"),
            is_embedding=name == embedding,
            label_shape=label_shape,
            image_size=(height, width),
            depth=depth,
            is_folded=name in folded,
            cells=_that_fit(cells.get(name), activation),
        )
        for index, (name, activation) in enumerate(kept.items())
    ]


def _cells_of_pixels(block: Block) -> Cells | str:
    if len(block.images) > 1:
        return "several images, taken together"
    image = block.images[0]
    sides = tuple(image.shape[axis] for axis in block.layout.grid_axes)
    grid = Grid(sides, (1.0,) * len(sides), (0.0,) * len(sides), (0.0,) * len(sides))
    return Cells(grid, partial(torch.movedim, source=block.layout.channel_axis, destination=1))


def _are_as_many(cells: Cells | str | None, others: Cells | str) -> bool:
    if not isinstance(cells, Cells) or not isinstance(others, Cells):
        return False
    return cells.grid.size == others.grid.size


def _that_fit(cells: Cells | str | None, activation: Tensor) -> Cells | str | None:
    """The cells of an activation, where it is as large as it was in the pass of two images that told them."""
    if not isinstance(cells, Cells):
        return cells
    try:
        size = cells.as_map(torch.empty_like(activation[:1], device="meta")).shape[2:]
    except RuntimeError:
        size = torch.Size()
    if tuple(size) != cells.grid.size:
        return f"it gave {tuple(activation.shape[1:])} for each image, and another shape in a batch of two"
    return cells


def _before_output(layers: Sequence[str], ends_in_output: bool) -> str:
    """The last layer that isn't the output itself."""
    return layers[-2] if ends_in_output and len(layers) > 1 else layers[-1]


def _is_output(activation: Tensor | None, output: Any) -> bool:
    if activation is None:
        return False
    entries = [entry for _, entry in named_entries(OUTPUT, output) if isinstance(entry, Tensor)]
    place = (activation.data_ptr(), activation.shape)
    return any((entry.data_ptr(), entry.shape) == place for entry in entries)
