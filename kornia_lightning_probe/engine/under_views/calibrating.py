"""Shows images of the first block, mirrored and with stripes, to metrics that ask where a layer's cells lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from kornia_lightning_probe.activations.readouts import Readout
from kornia_lightning_probe.engine.passes import Passes
from kornia_lightning_probe.engine.scout import Scouted
from kornia_lightning_probe.engine.segments import slices
from kornia_lightning_probe.engine.under_views.preparing import Prepared
from kornia_lightning_probe.functional.calibration import FEWEST_STRIPES, with_stripes
from kornia_lightning_probe.functional.grids import Size
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.metrics.maps.grid_metric import GridMetric

#: How many images of the first block are mirrored.
CALIBRATED = 16
#: How many of them get stripes.
STRIPED = 8


class Calibration:
    """The passes that some metrics need before anything is measured.

    Args:
        metrics: what is measured.
    """

    def __init__(self, metrics: Sequence[ProbeMetric]) -> None:
        self._is_wanted = any(isinstance(metric, GridMetric) for metric in metrics)

    def num_passes(self, num_images: int, size: int) -> int:
        """How many there are with a first block of so many images; those with stripes are known only later."""
        if not self._is_wanted:
            return 0
        return len(slices(min(CALIBRATED, num_images), size))

    def run(self, prepared: Prepared, scouted: Scouted, passes: Passes) -> None:
        """Run them, and have the metrics look."""
        if not self._is_wanted:
            return
        block, size = scouted.block, (scouted.block.images[0].shape[-2], scouted.block.images[0].shape[-1])
        few, fewer = block.first(CALIBRATED), block.first(STRIPED)
        flipped = passes.keep_clean(_changed(few, lambda images: images.flip(-1)))
        striped: dict[str, Tensor] = {}
        asking = [metric.asks_for_stripes(readout.site, size) for _, readout, metric in _grids(prepared)]
        if len(fewer) >= FEWEST_STRIPES and any(asking):
            passes.forward.expect_more(len(slices(len(fewer), passes.size(len(fewer)))))
            striped = passes.keep_clean(_changed(fewer, with_stripes))
        shown = {name: activation[: len(few)] for name, activation in scouted.activations.items()}
        for name, readout, metric in _grids(prepared):
            if name in flipped:
                _calibrate(metric, readout, (shown[name], flipped[name], striped.get(name)), size)


def _calibrate(
    metric: GridMetric, readout: Readout, activations: tuple[Tensor, Tensor, Tensor | None], size: Size
) -> None:
    clean, flipped, striped = activations
    stripes: Mapping[str, Tensor] = {}
    if striped is not None and metric.asks_for_stripes(readout.site, size):
        stripes = {"striped": readout.take(striped)}
    metric.calibrate(readout.site, readout.take(clean), readout.take(flipped), image_size=size, **stripes)


def _grids(prepared: Prepared) -> Iterator[tuple[str, Readout, GridMetric]]:
    """The metrics that ask, at every layer where they do."""
    for name, readers in prepared.readers.items():
        for reader in readers:
            for wish in reader.wishes:
                if isinstance(wish.metric, GridMetric):
                    yield name, reader.readout, wish.metric


def _changed(block: Block, change: Callable[[Tensor], Tensor]) -> Block:
    return replace(block, inputs=block.with_images([change(entry) for entry in block.images]))
