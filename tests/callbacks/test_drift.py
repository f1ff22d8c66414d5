"""DriftProbe inside real trainings: its numbers, what it keeps, and what it refuses."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from support.drifting import LAYERS, LIGHTNINGS_OWN_WARNINGS, Net, curve, data, fit, probe, saving
from torch import nn
from torch.utils.data import DataLoader

from kornia_lightning_probe.callbacks.drift import DriftProbe
from kornia_lightning_probe.functional.similarity import debiased_cka

pytestmark = LIGHTNINGS_OWN_WARNINGS


def test_each_epoch_is_compared_with_the_previous_and_the_first_probe(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=3)
    assert [result.epoch for result in found.history] == [-1, 0, 1, 2]
    assert [result.step for result in found.history] == [0, 2, 5, 8]
    assert found.result is found.history[-1]
    assert found.result.layers == tuple(LAYERS)
    assert found.result.metrics == ("cka_previous", "cka_first", "rankme")
    assert found.result.metadata["references"] == {"previous": 1, "first": -1}
    assert found.result.metadata["embedding"] == "flat"
    previous, first = curve(found), curve(found, "cka_first")
    assert previous[0].isnan().all()
    # The previous probe of the second one is the first.
    assert torch.equal(previous[1], first[1])
    assert ((previous[1:] > 0) & (previous[1:] < 1)).all()
    assert not torch.equal(previous[2], first[2])


def test_the_numbers_are_those_of_the_models_own_features(tmp_path):
    images = data(40, seed=1).tensors[0]
    net, found = Net(), probe(images=images)
    features = []

    class Keep(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            self.on_validation_end(trainer, pl_module)

        def on_validation_end(self, trainer, pl_module):
            was = pl_module.training
            with torch.no_grad():
                features.append(pl_module.eval().stem(images).double().mean((2, 3)))
            pl_module.train(was)

    fit(tmp_path, found, Keep(), net=net, epochs=1)
    grams = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in features]
    # CKA does not depend on the order of the images.
    expected = float(debiased_cka(*grams))
    assert found.result.value("cka_previous", layer="stem") == pytest.approx(expected, abs=1e-6)


def test_the_first_probe_has_no_rows_and_nan(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=1)
    first, second = found.history
    assert {row.metric for row in first.rows} == {"rankme"}
    assert {row.metric for row in second.rows} == {"cka_previous", "cka_first", "rankme"}
    assert {row.num_images for row in second.rows} == {32}
    assert {row.layer for row in second.rows if row.metric == "rankme"} == {"flat"}
    assert math.isnan(first.value("cka_previous"))
    assert first.metadata["references"] == {"previous": None, "first": None}


def test_a_frozen_layer_reads_one(tmp_path):
    found = probe()
    fit(tmp_path, found, net=Net(frozen=True), epochs=3)
    for metric in ("cka_previous", "cka_first"):
        stem, body = (curve(found, metric)[1:, LAYERS.index(name)] for name in ("stem", "body"))
        assert torch.allclose(stem, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (body < 1 - 1e-6).all()


@pytest.mark.filterwarnings("ignore:these layers give every clean image the same activation")
def test_a_dead_layer_is_nan_and_named_and_left_out_of_the_mean(tmp_path):
    found = probe(layers=["stem", "head"])
    net = Net(dead=True)
    net.head = nn.Linear(8 + 64, 3)
    net.forward = lambda x: net.head(torch.cat([net.flat(net.body(net.stem(x))), x.flatten(1)], 1))
    fit(tmp_path, found, net=net, epochs=2)
    assert curve(found)[1:, 0].isnan().all()
    assert found.result.metadata["dead_layers"] == ["stem"]
    assert found.result.value("cka_previous") == found.result.value("cka_previous", layer="head")


@pytest.mark.filterwarnings("ignore:these layers give every clean image the same activation")
def test_a_layer_that_was_dead_at_first_is_compared_with_the_first_probe_in_which_it_is_not(tmp_path):
    class Waking(Net):
        def forward(self, x):
            wakes = float(self.trainer.current_epoch >= 1)
            return self.head(self.flat(self.body(self.stem(x) * wakes)))

    found = probe(layers=["stem", "flat"])
    with pytest.warns(UserWarning, match="had nothing to compare flat with, dead in epoch -1.*is now that of epoch 1"):
        fit(tmp_path, found, net=Waking(), epochs=4)
    flat = curve(found, "cka_first")[:, 1]
    # Dead at the start and in epoch 0; epoch 1 is what later ones are compared with.
    assert flat[:3].isnan().all()
    assert flat[3] == curve(found)[3, 1]
    assert ((flat[3:] > 0) & (flat[3:] <= 1)).all()


def test_a_dead_layer_is_said_aloud_once(tmp_path):
    with pytest.warns(UserWarning, match=r"same activation, so nothing can be compared there \(NaN\): stem") as said:
        fit(tmp_path, probe(layers=["stem", "head"]), net=Net(dead=True), epochs=2, logger=False)
    assert sum("same activation" in str(warning.message) for warning in said) == 1


def test_a_resumed_training_has_the_curve_of_an_uninterrupted_one(tmp_path):
    whole = probe()
    fit(tmp_path / "whole", whole, epochs=4)
    fit(tmp_path / "half", probe(), saving(tmp_path / "half"), epochs=2)
    resumed = probe()
    fit(tmp_path / "half", resumed, saving(tmp_path / "half"), epochs=4, ckpt=tmp_path / "half" / "last.ckpt")
    assert [result.epoch for result in resumed.history] == [-1, 0, 1, 2, 3]
    for metric in ("cka_previous", "cka_first", "rankme"):
        torch.testing.assert_close(curve(resumed, metric), curve(whole, metric), rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("reference", [("previous", "first"), "previous", "first"], ids=str)
def test_layers_that_an_earlier_checkpoint_did_not_have_start_anew_with_one_sentence(tmp_path, reference):
    fit(tmp_path, probe(layers=["stem"], reference=reference), saving(tmp_path), epochs=1)
    resumed = probe(layers=["stem", "body"], embedding="stem", reference=reference)
    with pytest.warns(UserWarning, match="starts anew at body: there it compares with epoch 1") as said:
        fit(tmp_path, resumed, saving(tmp_path), epochs=4, ckpt=tmp_path / "last.ckpt")
    assert sum("starts anew" in str(warning.message) for warning in said) == 1
    for metric in resumed.result.metrics[:-1]:
        stem, body = ([result.value(metric, layer=name) for result in resumed.history[2:]] for name in ("stem", "body"))
        assert [math.isnan(value) for value in stem] == [False, False, False]
        assert [math.isnan(value) for value in body] == [True, False, False]


def test_a_monitor_is_given_0_where_no_layer_can_be_compared(tmp_path):
    fit(tmp_path, probe(layers=["stem"]), saving(tmp_path), epochs=1)
    resumed = probe(layers=["body"])
    with pytest.warns(UserWarning, match="starts anew at body"):
        trainer = fit(tmp_path, resumed, saving(tmp_path), epochs=2, ckpt=tmp_path / "last.ckpt")
    assert math.isnan(resumed.result.value("cka_first"))
    assert float(trainer.callback_metrics["drift/cka_first"]) == 0.0


def test_a_checkpoint_loads_as_weights_only_and_its_size_does_not_depend_on_the_width(tmp_path):
    sizes = {}
    for width in (4, 400):
        found = probe(layers=["stem"])
        fit(tmp_path, found, net=Net(width=width), epochs=1)
        path = tmp_path / f"{width}.pt"
        torch.save(found.state_dict(), path)
        sizes[width] = path.stat().st_size
        state = torch.load(path, weights_only=True)
        assert set(state["references"]) == {"previous", "first"}
    # Two references of 32 * 33 / 2 float32.
    assert abs(sizes[400] - sizes[4]) < 500
    assert sizes[4] < 2 * 4 * 32 * 33 / 2 + 30_000


def test_only_the_references_that_are_asked_for_are_kept(tmp_path):
    found = probe(reference="first")
    fit(tmp_path, found, epochs=2)
    assert found.result.metrics == ("cka_first", "rankme")
    assert found.result.metadata["references"] == {"first": -1}
    assert set(found.state_dict()["references"]) == {"first"}
    assert found.snapshot is None


def test_with_other_images_after_a_resume_the_comparison_starts_anew_and_says_so(tmp_path):
    first = probe()
    fit(tmp_path, first, saving(tmp_path), epochs=1)
    found = probe(seed=5)
    with pytest.warns(
        UserWarning, match=r"'drift' starts anew in epoch 1: .*only be measured on the same images"
    ) as said:
        fit(tmp_path, found, saving(tmp_path), epochs=3, ckpt=tmp_path / "last.ckpt")
    (sentence,) = [str(warning.message) for warning in said if "starts anew" in str(warning.message)]
    old = first.result.metadata["content_hash"]
    assert f"of epoch 0 have the content hash {old} (N=32)" in sentence
    assert [result.epoch for result in found.history] == [-1, 0, 1, 2]
    assert found.history[2].metadata["references"] == {"previous": None, "first": None}
    assert curve(found)[2].isnan().all()
    assert found.result.metadata["references"] == {"previous": 1, "first": 1}
    assert 0 < found.result.value("cka_first") < 1


def test_with_other_features_after_a_resume_the_comparison_starts_anew(tmp_path):
    fit(tmp_path, probe(), saving(tmp_path), epochs=1)
    found = probe(flatten=True)
    with pytest.warns(UserWarning, match=r"epoch 0 are pooled, those of epoch 1 flattened; set flatten= as it was"):
        fit(tmp_path, found, saving(tmp_path), epochs=2, ckpt=tmp_path / "last.ckpt")
    assert found.result.metadata["references"] == {"previous": None, "first": None}


def test_flattened_features_tell_more_than_pooled_ones(tmp_path):
    pooled, flattened = probe(name="pooled"), probe(name="flattened", flatten=True)
    fit(tmp_path, pooled, flattened, epochs=1)
    layer = LAYERS.index("stem")
    assert curve(pooled)[1, layer] != curve(flattened)[1, layer]
    # A layer of vectors has nothing to pool.
    layer = LAYERS.index("head")
    assert float(curve(pooled)[1, layer]) == pytest.approx(float(curve(flattened)[1, layer]), abs=1e-9)


def test_every_n_epochs_and_at_start_choose_the_probes(tmp_path):
    found = probe(every_n_epochs=2, at_start=False)
    fit(tmp_path, found, epochs=4)
    assert [result.epoch for result in found.history] == [0, 2]
    assert found.result.metadata["references"] == {"previous": 0, "first": 0}


def test_a_second_training_with_the_same_object_starts_over(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=1)
    fit(tmp_path, found, epochs=1, val=data(40, seed=7))
    assert [result.epoch for result in found.history] == [-1, 0]
    assert curve(found)[0].isnan().all()


def test_validate_and_test_leave_the_curve_alone(tmp_path):
    found = probe()
    trainer = fit(tmp_path, found, epochs=1)
    other = DataLoader(data(40, seed=9), batch_size=20)
    trainer.validate(trainer.lightning_module, other, verbose=False)
    trainer.test(trainer.lightning_module, other, verbose=False)
    assert [result.epoch for result in found.history] == [-1, 0]


def test_a_training_with_the_probe_ends_in_bitwise_the_same_weights(tmp_path):
    with_probe, without = Net(), Net()
    without.load_state_dict(with_probe.state_dict())
    fit(tmp_path, probe(flatten=True), net=with_probe)
    fit(tmp_path, net=without)
    for one, other in zip(with_probe.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_activations_that_are_not_finite_are_left_out_and_named(tmp_path):
    images = data(40, seed=1).tensors[0].clone()
    images[4] = torch.inf
    found = probe(images=images, layers=["stem", "head"])
    with pytest.warns(UserWarning, match=r"not finite were left out at stem, head \(images 4 of the source\)"):
        fit(tmp_path, found, epochs=1)
    assert {row.num_images for row in found.result.rows} == {39}
    assert 0 < found.result.value("cka_previous") < 1


def test_the_snapshot_of_an_epoch_can_be_compared_with_a_later_one(tmp_path):
    found, kept = probe(), []

    class Keep(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            kept.append(found.snapshot)

    fit(tmp_path, found, Keep(), epochs=2)
    value = float(debiased_cka(kept[0].gram("body"), kept[1].gram("body")))
    assert value == found.result.value("cka_previous", layer="body")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_images": 3}, "num_images must be at least 4, got 3"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dataloader_idx": -1}, "dataloader_idx must be at least 0, got -1"),
        ({"every_n_epochs": 0}, "every_n_epochs must be at least 1, got 0"),
        ({"reference": ("previous", "frist")}, "did you mean 'first'"),
        ({"reference": ()}, "reference is empty; it names what to compare with: previous, first"),
    ],
)
def test_arguments_out_of_range_are_refused(options, text):
    with pytest.raises(MisconfigurationException, match=text):
        DriftProbe(**options)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"at least 4 images, since debiased CKA divides by N - 3; got 3"
    ):
        fit(tmp_path, probe(images=torch.rand(3, 1, 8, 8)))
