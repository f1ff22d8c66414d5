"""What a probe keeps from one time to the next saves work and changes no number."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from support.trainings import QUIET, Net, assert_same_numbers, bank_of, fit, loader, probe_of, validate
from torch import nn

from kornia_lightning_probe import SensitivityProbe
from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine import sighting

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


@pytest.fixture
def draws(monkeypatch):
    """The views that are drawn."""
    drawn, draw = [], AugmentationBank.draw

    def counted(self, view, *args, **options):
        drawn.append(view.label)
        return draw(self, view, *args, **options)

    monkeypatch.setattr(AugmentationBank, "draw", counted)
    return drawn


@pytest.fixture
def looks(monkeypatch):
    """The models that are looked at."""
    seen, look_at = [], sighting.look_at

    def counted(subject, *args, **options):
        seen.append(subject.model)
        return look_at(subject, *args, **options)

    monkeypatch.setattr(sighting, "look_at", counted)
    return seen


@pytest.mark.parametrize("most", [2**20, 8 * 1024, 0])
def test_kept_views_change_no_bit_of_any_result(tmp_path, most):
    # All views of both blocks take 36 KiB, so that 8 KiB hold a part of them.
    histories = []
    for keep_views in (most, 0):
        probe = probe_of(keep_views=keep_views, metrics=None)
        fit(tmp_path, probe)
        histories.append(probe.history)
    assert len(histories[0]) == 3
    assert_same_numbers(*histories)
    kept, anew = (history[-1].images.worst for history in histories)
    assert torch.equal(kept.augmented, anew.augmented)


def test_with_noise_twins_too(tmp_path):
    histories = []
    for keep_views in (2**20, 0):
        probe = probe_of(keep_views=keep_views, metrics=["sensitivity", "noise_ratio"])
        fit(tmp_path, probe)
        histories.append(probe.history)
    assert_same_numbers(*histories)


def test_a_view_is_drawn_in_the_first_probe_only(tmp_path, draws):
    # Three views of two blocks, in one probe of three.
    fit(tmp_path, probe_of(num_images=64))
    assert len(draws) == 3 * 2
    # With nothing kept in each of them, and besides one or two blocks for the pictures of the worst images.
    draws.clear()
    fit(tmp_path, probe_of(num_images=64, keep_views=0))
    assert 3 * (3 * 2 + 1) <= len(draws) <= 3 * (3 * 2 + 2)


def test_after_a_training_nothing_is_held(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe)
    assert probe._kept.nbytes == 0
    assert probe._kept.most_bytes == 0


def test_after_a_training_that_fails_nothing_is_held(tmp_path):
    class Failing(Net):
        def on_train_epoch_end(self):
            raise ZeroDivisionError

    probe = probe_of()
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, probe, model=Failing)
    assert len(probe.history) > 0
    assert probe._kept.nbytes == 0


@pytest.mark.filterwarnings("ignore:.*was relative to epoch 0, with other images")
def test_another_run_with_other_images_draws_anew(tmp_path):
    probe, fresh = probe_of(), probe_of()
    validate(tmp_path, probe)
    validate(tmp_path, probe, val=loader(seed=5))
    validate(tmp_path, fresh, val=loader(seed=5))
    assert_same_numbers(probe.validations[-1:], fresh.validations)


def test_a_model_is_looked_at_once_in_a_training(tmp_path, looks):
    fit(tmp_path, probe_of(), max_epochs=3)
    assert len(looks) == 1


def test_a_model_that_gets_another_layer_is_looked_at_again(tmp_path, looks):
    class Growing(Net):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.body = nn.Sequential(self.body, nn.Identity(), nn.Tanh())
                self.backbone = nn.Sequential(self.stem, self.body, self.head)

    probe = SensitivityProbe(bank_of(), num_images=16, figures=False)
    fit(tmp_path, probe, model=Growing, max_epochs=3)
    assert len(looks) == 2


@pytest.mark.parametrize("keep_views", [-1, 1.5, "all"])
def test_other_numbers_of_bytes_are_refused(keep_views):
    with pytest.raises(MisconfigurationException, match="keep_views"):
        probe_of(keep_views=keep_views)


class Changing(Net):
    """Does something else from the second epoch on."""

    def __init__(self):
        super().__init__()
        width = self.stem(torch.zeros(1, 3, 8, 8)).shape[1]
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Linear(width, 2)

    def mixed(self, maps):
        return self.mix(maps)

    def forward(self, images):
        return self.last(self.mixed(self.stem(images)).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


class InWindows(Changing):
    """Its maps go through a layer in windows at first, which nothing says that a module holds."""

    def mixed(self, maps):
        if self.trainer.current_epoch > 0:
            return self.mix(maps)
        side = maps.shape[-1] // 2
        windows = maps.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return self.mix(windows).unflatten(0, (len(maps), -1)).mean(1)


class WithStride(Changing):
    """A layer gets another stride, at the same shapes of parameters."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.mix.stride = (2, 2)


class WithMore(Changing):
    """Gives a second output as soon as a flag says so."""

    more = False

    def on_train_epoch_start(self):
        self.more = self.current_epoch > 0

    def forward(self, images):
        scores = super().forward(images)
        return (scores, self.stem(images)) if self.more else scores

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(super().forward(batch[0]), batch[1])


@pytest.mark.parametrize("kind", [InWindows, WithStride, WithMore])
@pytest.mark.filterwarnings("ignore:.*was relative to epoch")
def test_a_model_that_does_otherwise_later_is_measured_as_by_a_new_probe(tmp_path, kind, monkeypatch):
    histories, look_at = [], sighting.look_at
    for forgets in (False, True):
        if forgets:
            monkeypatch.setattr(sighting.FirstLooks, "is_first", True)
            monkeypatch.setattr(sighting.FirstLooks, "of", lambda _, *given, **options: look_at(*given, **options))
            monkeypatch.setattr(sighting.FirstLooks, "require_same", lambda *_: None)
        probe = SensitivityProbe(bank_of(), num_images=16, figures=False)
        fit(tmp_path, probe, model=kind, max_epochs=3)
        histories.append(probe.history)
    assert_same_numbers(*histories)


class Remembering(Changing):
    """Holds tensors of its last forward in a tuple, and None before it."""

    last_maps = None

    def mixed(self, maps):
        self.last_maps = (maps.detach(), maps.detach().clone())
        return super().mixed(maps)


def test_tensors_that_a_model_holds_are_neither_compared_nor_kept(tmp_path, looks):
    probe = SensitivityProbe(bank_of(), num_images=16, figures=False)
    fit(tmp_path, probe, model=Remembering, max_epochs=3)
    assert len(probe.history) == 4
    assert len(looks) <= 2
    assert not any(isinstance(held, torch.Tensor) for held in _leaves(probe._looks._makeup))


def _leaves(nested):
    if isinstance(nested, tuple | list):
        return [leaf for entry in nested for leaf in _leaves(entry)]
    return [nested]
