"""What only a CUDA device can show; skipped without one."""

from contextlib import contextmanager

import lightning.pytorch as pl
import pytest
import torch
from support.nets import ResNet
from support.trainings import QUIET, Net, assert_same_numbers, bank_of, loader, probe_of, trainer_of

from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.engine.passes import Passes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    *(pytest.mark.filterwarnings(line) for line in QUIET),
]


@pytest.fixture(autouse=True)
def exact():
    """Float32 as it is written, on the device too."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        yield


@contextmanager
def waiting_refused():
    """Any wait for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def images_of(count, *, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def flips_and_turns():
    """Views that draw nothing on the device."""
    return AugmentationBank(
        {"flip": presets.hflip(), "turn": presets.rotation([10, 30]), "dark": presets.darken([-0.2])}
    )


def fit(folder, probe, *, accelerator, **options):
    pl.seed_everything(0, verbose=False)
    trainer = trainer_of(folder, probe, accelerator=accelerator, **options)
    trainer.fit(Net(), loader(), loader(seed=1))
    return probe


def test_the_whole_default_set_is_that_of_the_cpu():
    torch.manual_seed(0)
    model, images = ResNet().eval(), images_of(70)
    expected = probe_model(model, images, flips_and_turns())
    found = probe_model(model, images, flips_and_turns(), device="cuda", batch_size="auto")
    # Shares of images, and ranks among them, jump by whole images where two scores are nearly equal.
    counted = {"retrieval_auc", "flip_rate", "accuracy", "accuracy_drop"} & set(expected.metrics)
    for metric in expected.metrics:
        pair = (found.tensor(metric), expected.tensor(metric))
        torch.testing.assert_close(*pair, rtol=1e-4, atol=2 / 70 if metric in counted else 1e-5, equal_nan=True)


def test_nobody_waits_for_the_device_in_passes_and_measuring_under_views(tmp_path, monkeypatch):
    run, watched = Passes.run, []

    def guarded(self, block, inputs, sink, *, draw, num_rows):
        if draw == "clean":
            return run(self, block, inputs, sink, draw=draw, num_rows=num_rows)
        watched.append(draw)
        with waiting_refused():
            return run(self, block, inputs, sink, draw=draw, num_rows=num_rows)

    monkeypatch.setattr(Passes, "run", guarded)
    fit(tmp_path, probe_of(metrics=None, num_images=32), accelerator="gpu", devices=1)
    # Three probes of one block under three views.
    assert len(watched) == 9


def test_memory_does_not_grow_with_images_or_views():
    torch.manual_seed(0)
    model = ResNet(width=16).eval().cuda()
    peaks = []
    for count, levels in ((64, 3), (256, 3), (64, 12)):
        bank = AugmentationBank({"noise": presets.gaussian_noise([0.01 * level for level in range(1, levels + 1)])})
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        probe_model(model, images_of(count, size=64), bank)
        peaks.append(torch.cuda.max_memory_allocated())
    assert max(peaks) <= 1.1 * min(peaks)


def test_between_probes_no_memory_of_the_device_is_held(tmp_path):
    held = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            held.append(torch.cuda.memory_allocated())

    probe = probe_of(num_images=64, keep_views=2**28)
    bare, probed = [], []
    for callbacks, into in (((), bare), ((probe,), probed)):
        held.clear()
        pl.seed_everything(0, verbose=False)
        trainer = trainer_of(tmp_path, *callbacks, Watch(), accelerator="gpu", devices=1, max_epochs=3)
        trainer.fit(Net(), loader(), loader(seed=1))
        into += held
    # A few rows of tables at most; all views of 64 images are 147 kB.
    assert probed[-1] - bare[-1] < 64 * 1024


def test_the_devices_stream_is_as_before():
    model, images = ResNet().eval().cuda(), images_of(40).cuda()
    before = torch.cuda.get_rng_state()
    probe_model(model, images, AugmentationBank.preset(), metrics=["sensitivity", "noise_ratio"])
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_training_ends_in_the_same_weights_with_and_without_the_probe(tmp_path):
    weights = []
    for callbacks in ((), (probe_of(metrics=None),)):
        pl.seed_everything(0, verbose=False)
        net = Net()
        trainer = trainer_of(tmp_path, *callbacks, accelerator="gpu", devices=1)
        trainer.fit(net, loader(), loader(seed=1))
        weights.append([parameter.detach().cpu() for parameter in net.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_autocast_measures_what_float32_does_within_its_rounding(tmp_path):
    # Bfloat16 has 8 bits: a relative rounding of 2**-9, of distances a few times as much.
    half = fit(tmp_path, probe_of(), accelerator="gpu", devices=1, precision="bf16-mixed", max_epochs=1)
    full = fit(tmp_path, probe_of(), accelerator="cpu", max_epochs=1)
    left, right = (each.history[0].tensor("sensitivity") for each in (half, full))
    torch.testing.assert_close(left, right, rtol=0.05, atol=0.02)


def test_one_process_of_nccl_gives_the_numbers_of_none(tmp_path):
    alone = fit(tmp_path, probe_of(metrics=None), accelerator="gpu", devices=1, max_epochs=1)
    # Lightning's sampler would deal the training's batches in another order.
    options = {"strategy": "ddp", "use_distributed_sampler": False}
    spread = fit(tmp_path, probe_of(metrics=None), accelerator="gpu", devices=1, max_epochs=1, **options)
    assert_same_numbers(alone.history, spread.history, rtol=1e-5, atol=1e-6)


def test_the_view_of_a_bank_is_the_same_on_the_device():
    bank, images = bank_of(), images_of(8)
    for view in bank:
        there = bank.augment(view, images.cuda(), block=0).images[0].cpu()
        torch.testing.assert_close(there, bank.augment(view, images, block=0).images[0], rtol=1e-4, atol=1e-5)
