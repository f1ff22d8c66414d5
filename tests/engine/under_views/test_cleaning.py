import torch
from support.activations import normal
from support.readings import MOVING, STILL, prepared_for, site_of

from kornia_lightning_probe.engine.under_views.cleaning import Cleaning
from kornia_lightning_probe.functional.memory import Temporaries

CONV = site_of("conv", (3, 4, 4))
METRICS = ["sensitivity", "sensitivity_flat", "cosine", "spread", "spread_ratio"]


def cleaning_of(prepared):
    return Cleaning(prepared.readers, Temporaries())


def test_readers_of_one_site_share_its_clean_block():
    prepared = prepared_for(METRICS, CONV, views=(STILL, MOVING))
    entries = cleaning_of(prepared).read({"conv": normal(4, 3, 4, 4)})["conv"]
    places = [reader.readout.site for reader in prepared.readers["conv"]]
    assert len({id(entry) for entry in entries}) == len(set(places)) < len(entries) + 1
    for place, entry in zip(places, entries, strict=True):
        assert entry.activation.shape == (4, *place.shape)


def test_layers_that_did_not_run_are_not_read():
    prepared = prepared_for(["spread"], CONV, site_of("fc", (5,), 2))
    assert list(cleaning_of(prepared).read({"fc": normal(4, 5)})) == ["fc"]


def test_images_that_are_not_finite_are_masked_in_every_reading():
    prepared = prepared_for(METRICS, CONV)
    activation = normal(4, 3, 4, 4)
    activation[2, 0, 1, 1] = torch.nan
    for entry in cleaning_of(prepared).read({"conv": activation})["conv"]:
        assert entry.valid.tolist() == [True, True, False, True]
        assert entry.activation.isfinite().all()


def test_centres_are_those_of_all_reference_blocks_and_hold_for_all_that_follows():
    prepared = prepared_for(["sensitivity_flat", "spread"], CONV)
    cleaning = cleaning_of(prepared)
    first, second = normal(4, 3, 4, 4), normal(6, 3, 4, 4, seed=1)
    cleaning.centre_on([{"conv": first.clone()}, {"conv": second.clone()}])
    flat, pooled = cleaning.read({"conv": normal(2, 3, 4, 4, seed=2)})["conv"]
    every = torch.cat([first, second])
    torch.testing.assert_close(flat.mean, every.mean(0, keepdim=True))
    torch.testing.assert_close(pooled.mean, every.mean((2, 3)).mean(0, keepdim=True))
    # Each block's images lie apart about their own mean: a mean of traces, weighted by images.
    trace = (4 * first.flatten(1).var(0).sum() + 6 * second.flatten(1).var(0).sum()) / 10
    torch.testing.assert_close(flat.deviation, trace.expand(2))
