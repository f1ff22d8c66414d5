"""Before anything is measured: which metrics read which layer in which way, and under which views."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kornia_lightning_probe.activations.readouts import Readout, readouts_of
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.functional.distances import accumulation_dtype, upcast
from kornia_lightning_probe.metrics.base import BlockMetric, DistanceMetric, ProbeMetric
from kornia_lightning_probe.metrics.layers.sensitivity import Ledger
from kornia_lightning_probe.metrics.maps.grid_metric import GridMetric
from kornia_lightning_probe.model.outputs import of_images
from kornia_lightning_probe.wording import listed, quoted

# Of pooled features, so much of what images differ by may be lost to rounding.
_MOST_LOST = 1e-5
# The largest entry of an activation whose squares, and those of differences a millionth of it, float32 holds.
_SAFE = (1e-12, 1e15)
# Where rounding is larger than what images differ by, they differ by nothing else.
_NOTHING_LEFT = 1.0

#: "distances": only how far images moved is kept of an activation. "block": all of it is kept, until a block's views
#: are through. "view": it is measured at once, view by view.
Kind = Literal["distances", "block", "view"]


@dataclass(frozen=True)
class Wish:
    """A metric at a layer, and the views under which it wants to be measured there."""

    metric: ProbeMetric
    views: tuple[bool, ...]


@dataclass(frozen=True)
class Reader:
    """A way in which a layer is read, and the metrics that are fed with it.

    Args:
        layer: the layer's name.
        readout: what is taken of its activation.
        kind: what becomes of it.
        wishes: the prepared metrics.
        views: under which views any of them wants it.
        reads: of distances, which.
        is_wide: whether the layer's activations are so small or so large that float32 does not hold their squares.
    """

    layer: str
    readout: Readout
    kind: Kind
    wishes: tuple[Wish, ...]
    views: tuple[bool, ...]
    reads: tuple[str, ...] = ()
    is_wide: bool = False

    def upcast(self, activation: Tensor) -> Tensor:
        """The layer's activation in the precision in which it is compared."""
        if self.is_wide:
            return activation.to(accumulation_dtype(activation.device))
        return upcast(activation)


@dataclass
class Prepared:
    """The metrics with their tables, and how they are fed.

    Args:
        metrics: by name, in the order in which they were given; the engine's own ledger comes last.
        readers: by layer, in order of execution.
    """

    metrics: dict[str, ProbeMetric] = field(default_factory=dict)
    readers: dict[str, list[Reader]] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """What keeps which activations were finite, and which layers tell images apart."""
        return next(metric for metric in self.metrics.values() if isinstance(metric, Ledger))

    @property
    def sites(self) -> dict[str, Site]:
        """By name, what is read: layers and parts of them; where there are several ways, the last."""
        readouts = [reader.readout for readers in self.readers.values() for reader in readers]
        return {readout.site.name: readout.site for readout in readouts}

    def choose_precision(
        self, activations: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype] | None = None
    ) -> list[str]:
        """Look at the size of activations, and at the rounding of pooled features, on the first block.

        Those that would lose digits in float32 are summed in float64, which takes more time. Those whose images differ
        by rounding only, as behind a normalisation over space, are taken as 0.

        Args:
            activations: clean ones by layer, half precision as float32.
            dtypes: in which the model has computed them; None: as they are.

        Returns:
            The names of the latter, without those of dead layers, at which images do not differ at all.
        """
        for name, readers in self.readers.items():
            if not _holds_squares(activations[name]):
                self.readers[name] = [replace(reader, is_wide=True) for reader in readers]
        found = self._roundings(activations, dtypes or {})
        nothing: list[str] = []
        for name, readers in self.readers.items():
            for number, reader in enumerate(readers):
                if id(reader.readout) in found:
                    lost, left = found[id(reader.readout)]
                    is_nothing = left > _NOTHING_LEFT
                    readout = replace(reader.readout, is_wide=lost > _MOST_LOST, is_nothing=is_nothing)
                    readers[number] = replace(reader, readout=readout)
                    if is_nothing and _tells_apart(activations[name]):
                        nothing.append(readout.site.name)
        return list(dict.fromkeys(nothing))

    def _roundings(
        self, activations: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
    ) -> dict[int, Sequence[float]]:
        """Of each readout that averages the two figures of its rounding, by its id, since several readers share it."""
        roundings: dict[int, Tensor] = {}
        for name, readers in self.readers.items():
            dtype = dtypes.get(name, activations[name].dtype)
            for readout in {id(reader.readout): reader.readout for reader in readers}.values():
                rounding = readout.rounding(activations[name], dtype)
                if rounding is not None:
                    roundings[id(readout)] = torch.stack(rounding).cpu()
        return {number: rounding.tolist() for number, rounding in roundings.items()}


def _holds_squares(activation: Tensor) -> bool:
    """Whether float32 holds the squares of what an activation's images differ by."""
    low, high = (float(end) for end in torch.aminmax(activation))
    if not math.isfinite(low - high):
        low, high = (float(end) for end in torch.aminmax(activation.nan_to_num(0.0, 0.0, 0.0)))
    largest = max(-low, high)
    return largest == 0 or _SAFE[0] < largest < _SAFE[1]


def prepare(
    metrics: Sequence[ProbeMetric],
    sites: Sequence[Site],
    views: Sequence[Any],
    num_images: int,
    *,
    device: torch.device,
    findings: Findings,
    default_set: bool,
    image_ids: Sequence[int] = (),
    blocks: Sequence[Sequence[int]] = (),
) -> Prepared:
    """Give every metric its tables, once the sites are known.

    Args:
        metrics: what is measured.
        sites: the pixels, the layers, the output.
        views: the bank's, and behind them their twins where a metric reads them.
        num_images: N.
        device: where tables live.
        findings: where it is noted what applies nowhere.
        default_set: whether nobody asked for these metrics in particular; one that applies nowhere is no news then.
        image_ids: the images' numbers in their source, for what metrics say of them; empty: their rows.
        blocks: the rows of each block in the tables, one behind the other; empty: not known.
    """
    readouts = [readout for site in sites for readout in readouts_of(site)]
    prepared = Prepared()
    wishes: dict[int, list[Wish]] = {}
    own = [] if any(isinstance(metric, Ledger) for metric in metrics) else [Ledger()]
    for metric in [*metrics, *own]:
        concerned = [number for number, readout in enumerate(readouts) if metric.applies_to(readout.site)]
        if not concerned:
            _note_nowhere(metric, _why_nowhere(metric, sites), findings, default_set=default_set)
            continue
        layers = list(dict.fromkeys(readouts[number].site.name for number in concerned))
        rows = views if metric.reads_twins else [view for view in views if not _is_twin(view)]
        ready = metric.prepare(rows, layers, num_images, device=device)
        ready.image_ids = tuple(image_ids)
        ready.blocks = tuple((rows[0], rows[-1] + 1) for rows in blocks)
        wanted = _wishes(ready, {number: readouts[number].site for number in concerned}, views)
        if not wanted:
            reason = f"none of these views is one that it is measured under{_needs(metric)}"
            _note_nowhere(metric, reason, findings, default_set=default_set)
            continue
        prepared.metrics[metric.name] = ready
        for number, wish in wanted.items():
            wishes.setdefault(number, []).append(wish)
    if any(view.moves_pixels for view in views):
        _note_unknown_grids(prepared, sites, findings, default_set=default_set)
    for number, readout in enumerate(readouts):
        layer = sites[_place(readout.site, sites)].name
        for reader in _readers(layer, readout, wishes.get(number, [])):
            prepared.readers.setdefault(layer, []).append(reader)
    return prepared


def _wants(metric: ProbeMetric, site: Site, view: Any) -> bool:
    """Whether a metric wants to see a view at a site; of twins only those do that say so."""
    if _is_twin(view) and not metric.reads_twins:
        return False
    return metric.wants_view(site, view)


def _is_twin(view: Any) -> bool:
    return bool(getattr(view, "is_twin", False))


def _tells_apart(activation: Tensor) -> bool:
    return bool((activation != activation[:1]).any())


def _place(site: Site, sites: Sequence[Site]) -> int:
    return next(number for number, whole in enumerate(sites) if whole.index == site.index)


def _readers(layer: str, readout: Readout, wishes: Sequence[Wish]) -> Iterator[Reader]:
    """Apart those metrics that need distances only, whole blocks, or each view by itself."""
    by_kind: dict[Kind, list[Wish]] = {}
    for wish in wishes:
        by_kind.setdefault(_kind(wish.metric, readout), []).append(wish)
    for kind, alike in by_kind.items():
        reads = [name for wish in alike for name in getattr(wish.metric, "reads", ())]
        views = tuple(map(any, zip(*(wish.views for wish in alike), strict=True)))
        yield Reader(layer, readout, kind, tuple(alike), views, tuple(dict.fromkeys(reads)))


def _kind(metric: ProbeMetric, readout: Readout) -> Kind:
    is_pooled = readout.site.representation != "activation"
    # A subclass with a measure of its own is one of the first kind, whatever it was derived from.
    measure = type(metric).measure
    if isinstance(metric, BlockMetric) and measure is BlockMetric.measure:
        return "block"
    if isinstance(metric, DistanceMetric) and measure is DistanceMetric.measure:
        # Pooled features are small, and kept for the others that read them.
        return "block" if is_pooled else "distances"
    return "view"


def _note_unknown_grids(prepared: Prepared, sites: Sequence[Site], findings: Findings, *, default_set: bool) -> None:
    """Note at which layers it is not known where their cells lie, so that no map can be carried there."""
    metrics = [metric for metric in prepared.metrics.values() if isinstance(metric, GridMetric)]
    for scope, what in (("layers", "equivariance"), ("output", "pixel_flip_rate under views that move pixels")):
        if any(metric.scope == scope for metric in metrics):
            reasons = _why_no_grid(sites, of_output=scope == "output")
            findings.without_grid(what, reasons, aloud=not default_set)


def _why_no_grid(sites: Sequence[Site], *, of_output: bool) -> dict[str, str]:
    """By site why it is not known where its cells lie; vectors have none."""
    reasons: dict[str, str] = {}
    for site in sites:
        if (site.kind == "output") == of_output and len(site.shape) > 1 and isinstance(site.cells, str):
            reasons[site.name] = site.cells
    return reasons


def _wishes(metric: ProbeMetric, sites: Mapping[int, Site], views: Sequence[Any]) -> dict[int, Wish]:
    """Fit a prepared metric to its sites; at which of them it wants to see a view, by the number of the readout."""
    wishes: dict[int, Wish] = {}
    for number, site in sites.items():
        metric.fit(site)
        wanted = tuple(_wants(metric, site, view) for view in views)
        if any(wanted):
            wishes[number] = Wish(metric, wanted)
    return wishes


def _note_nowhere(metric: ProbeMetric, reason: str, findings: Findings, *, default_set: bool) -> None:
    if default_set:
        findings.facts.setdefault("metrics_left_out", {})[metric.name] = reason
    else:
        findings.metric_left_out(metric.name, reason, of_output=metric.scope == "output")


def _needs(metric: ProbeMetric) -> str:
    return f"; it needs {metric.needs}" if metric.needs else ""


def _why_nowhere(metric: ProbeMetric, sites: Sequence[Site]) -> str:
    """Why a metric applies to none of these: what it needs, and what the output has where it is one of outputs."""
    reason = f"this metric applies to none of [{quoted(site.name for site in sites)}]{_needs(metric)}"
    if isinstance(metric, GridMetric) and metric.scope == "layers":
        lost = [f"{name!r} ({why})" for name, why in _why_no_grid(sites, of_output=False).items()]
        reason += f"; that is not known of {listed(lost)}" if lost else ""
    for site in sites:
        if site.kind == "output" and metric.scope == "output":
            labels = "no labels" if site.label_shape is None else f"labels {of_images(site.label_shape)}"
            reason += f"; here are class scores {of_images(site.shape)} and {labels}"
    return reason
