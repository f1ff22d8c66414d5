"""Two hundred probed epochs: what a probe costs in memory, open files, time and checkpoint does not grow.

The figures are logged: ``pytest --log-cli-level=INFO tests/soak`` shows them.
"""

import gc
import io
import logging
import os
import statistics
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from support.trainings import LAYERS, QUIET, Net, fit, probe_of

from kornia_lightning_probe import DriftProbe

EPOCHS = 200
# Allocators, caches and what is imported late have settled by then.
SETTLED = 50
LOG = logging.getLogger(__name__)
STATM, FILES = Path("/proc/self/statm"), Path("/proc/self/fd")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not STATM.exists(), reason="a process's memory and files are read from /proc"),
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:the probe .* takes more than:UserWarning"),
]


def state_bytes(probe):
    """How much of a checkpoint is a probe's."""
    buffer = io.BytesIO()
    torch.save(probe.state_dict(), buffer)
    return buffer.tell()


class Watch(pl.Callback):
    """Notes after each epoch what the process holds, and how long its probes took.

    Args:
        probes: the probes.
        forget: whether their histories are cut to the first and the last result.
    """

    def __init__(self, *probes, forget=False):
        self.probes, self.forget = probes, forget
        self.resident, self.files, self.seconds = [], [], []
        self.states = {}

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        for probe in self.probes:
            if self.forget:
                del probe.history[1:-1]
        gc.collect()
        pages = int(STATM.read_text().split()[1])
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.files.append(len(list(FILES.iterdir())))
        self.seconds.append(sum(probe.result.metadata["seconds"] for probe in self.probes))
        if trainer.current_epoch + 1 in (SETTLED, 2 * SETTLED, EPOCHS):
            self.states[trainer.current_epoch + 1] = [state_bytes(probe) for probe in self.probes]


def slope(values):
    """Growth from one epoch to the next after all has settled: the median over pairs that are half of them apart."""
    later = values[SETTLED:]
    half = len(later) // 2
    return statistics.median((later[half + i] - later[i]) / half for i in range(half))


def watched(folder, epochs, *, figures=False, forget=False):
    """A training with both probes, and what was noted of it."""
    sensitivity = probe_of(figures=figures)
    drift = DriftProbe(layers=list(LAYERS), num_images=16, figures=figures)
    watch = Watch(sensitivity, drift, forget=forget)
    logger = TensorBoardLogger(folder, name="run")
    fit(folder, sensitivity, drift, watch, model=Net(lr=1e-3), max_epochs=epochs, logger=logger)
    assert len(watch.resident) == epochs
    LOG.info("resident memory: %.0f bytes an epoch, in the end %d", slope(watch.resident), watch.resident[-1])
    LOG.info("open files: %d after %d epochs, %d in the end", watch.files[SETTLED], SETTLED, watch.files[-1])
    return watch


def growth(watch, first, last):
    """By how many bytes each probe's part of a checkpoint has grown from one epoch to the next, in between."""
    pairs = zip(watch.states[first], watch.states[last], strict=True)
    return [(later - earlier) / (last - first) for earlier, later in pairs]


def test_two_hundred_probes_are_as_cheap_as_the_first(tmp_path):
    watch = watched(tmp_path, EPOCHS)
    early, late = (statistics.median(watch.seconds[start : start + SETTLED]) for start in (SETTLED, EPOCHS - SETTLED))
    sizes = growth(watch, 2 * SETTLED, EPOCHS)
    LOG.info("two probes: %.3f s early, %.3f s late", early, late)
    LOG.info("checkpoint: %.0f and %.0f bytes a probe", *sizes)
    assert watch.files[-1] == watch.files[SETTLED]
    # The machine may have become busier, but nothing is gone through for all results so far.
    assert late < 2 * early
    # How far numbers can be compressed depends on them.
    assert sizes == pytest.approx(growth(watch, SETTLED, 2 * SETTLED), rel=0.05)
    # 22 metrics of 3 views and 4 layers, of 4 bytes and an error of 1 or 4, are 1.5 kB at most; an archive has 300
    # bytes around them, and what changes of the facts, such as the file's name, has as many.
    assert sizes[0] < 2_500
    assert sizes[1] < 1_000
    # All that stays is the results, some hundred small tensors an epoch.
    assert slope(watch.resident) < 150_000


@pytest.mark.parametrize(("epochs", "figures"), [(EPOCHS, False), (2 * SETTLED, True)], ids=["bare", "with pictures"])
def test_where_results_are_not_kept_nothing_is(tmp_path, epochs, figures):
    watch = watched(tmp_path, epochs, figures=figures, forget=True)
    assert watch.files[-1] == watch.files[SETTLED]
    assert slope(watch.resident) < 10_000
