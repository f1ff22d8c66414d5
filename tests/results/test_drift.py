"""What is kept of a probe, and what is made of it, without a training."""

import pytest
import torch

from kornia_lightning_probe.functional.similarity import centred_gram, debiased_cka
from kornia_lightning_probe.results.drift import CleanFeatures, DriftRecord, Snapshot


def noise(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()


def features(tables, *, content_hash="aa", readout="pooled"):
    return CleanFeatures(tables, tuple(tables), next(iter(tables)), content_hash, readout)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_what_is_kept_gives_the_cka_of_float64_features(scale, mean):
    # The features' squares would leave float32 at both ends.
    x, y = noise(40, 30) + mean, noise(40, 30) + 0.5 * noise(40, 30, seed=1) + mean
    exact = debiased_cka(centred_gram(x), centred_gram(y))
    kept = [Snapshot.of(features({"a": scale * z}), epoch=0).gram("a") for z in (x, y)]
    torch.testing.assert_close(debiased_cka(*kept), exact, rtol=0, atol=1e-8)


def test_a_snapshot_is_a_triangle_for_each_layer_whatever_its_width():
    snapshot = Snapshot.of(features({"narrow": noise(10, 1), "wide": noise(10, 999)}), epoch=3)
    assert {name: (len(kept), kept.dtype) for name, kept in snapshot.triangles.items()} == {
        "narrow": (55, torch.float32),
        "wide": (55, torch.float32),
    }


def test_a_snapshot_and_its_state_hold_the_same_matrices():
    spoilt = noise(10, 4)
    spoilt[2] = torch.nan
    snapshot = Snapshot.of(features({"a": spoilt}), epoch=3)
    again = Snapshot.from_state(snapshot.state())
    assert (again.epoch, again.content_hash, again.readout, again.num_images) == (3, "aa", "pooled", 10)
    gram = again.gram("a")
    assert torch.equal(gram.isnan(), snapshot.gram("a").isnan())
    assert gram[2].isnan().all()
    assert torch.equal(gram.nan_to_num(), gram.T.nan_to_num())
    assert gram.nan_to_num().abs().max() == 1
    assert again.gram("b").isnan().all()


def test_a_record_compares_with_the_first_and_the_previous_probe():
    record, tables = DriftRecord(), [noise(20, 5, seed) + noise(20, 5) for seed in (1, 2, 3)]
    results = [record.compare(features({"a": table}), epoch=i, step=10 * i) for i, table in enumerate(tables)]
    grams = [centred_gram(table) for table in tables]
    assert results[2].value("cka_previous") == pytest.approx(float(debiased_cka(grams[2], grams[1])), abs=1e-8)
    assert results[2].value("cka_first") == pytest.approx(float(debiased_cka(grams[2], grams[0])), abs=1e-8)
    assert (results[2].epoch, results[2].step) == (2, 20)
    assert [view.augmentation for view in results[2].views] == ["clean"]


def test_a_record_goes_on_from_its_state():
    record, tables = DriftRecord(), [noise(20, 5, seed) for seed in (1, 2, 3)]
    for i, table in enumerate(tables[:2]):
        record.compare(features({"a": table}), epoch=i, step=i)
    again = DriftRecord()
    again.load(record.state())
    one, other = (r.compare(features({"a": tables[2]}), epoch=2, step=2) for r in (record, again))
    for metric in ("cka_previous", "cka_first"):
        assert one.value(metric) == other.value(metric)


def test_a_refused_comparison_leaves_the_record_as_it_was():
    record = DriftRecord()
    record.compare(features({"a": noise(20, 5)}), epoch=0, step=0)
    with pytest.raises(ValueError, match=r"content hash aa \(N=20\), those of epoch 1 bb \(N=20\)"):
        record.compare(features({"a": noise(20, 5)}, content_hash="bb"), epoch=1, step=1)
    assert {snapshot.epoch for snapshot in record.held.values()} == {0}


def test_parts_of_a_layer_have_rows_of_their_own():
    tables = {"block:cls": noise(20, 5), "block:patch": noise(20, 5, seed=1)}
    found = CleanFeatures(tables, ("block",), "block:cls", "aa", "pooled")
    result = DriftRecord().compare(found, epoch=0, step=0)
    assert result.layers == ("block",)
    assert result.table("cka_first").layers == ("block:cls", "block:patch")
    assert result.table("rankme").layers == ("block:cls",)


def test_a_record_says_what_its_numbers_mean_and_keeps_what_is_known_of_the_probe():
    record = DriftRecord(("first",))
    for epoch in range(2):
        numbers = record.compare(features({"a": noise(20, 5)}), epoch=epoch, step=0, metadata={"seed": 7})
    assert numbers.table("cka_first").quantity.meaning.startswith("debiased CKA with the first probe, 1: the same up")
    assert numbers.table("rankme").quantity.meaning == "how many directions the images spread over"
    assert numbers.metadata["seed"] == 7
    assert numbers.metadata["references"] == {"first": 0}


def test_features_name_what_is_dead_and_what_is_missing():
    spoilt = noise(6, 3)
    spoilt[4, 1] = torch.nan
    found = features({"dead": torch.ones(6, 2), "spoilt": spoilt})
    assert found.dead == ["dead"]
    assert found.missing.nonzero().tolist() == [[1, 4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "3"}, r"^references\.first\.epoch must be a whole number, got '3'$"),
        (
            {"triangles": {"a": torch.zeros(5)}},
            r"^references\.first\.triangles\.a must be a tensor of the shape",
        ),
        ({"triangles": {"a": [0.0]}}, r"^references\.first\.triangles\.a must be a tensor, got \[0\.0\]$"),
        ({"num_images": None}, r"^references\.first\.num_images must be a whole number, got None$"),
    ],
)
def test_a_malformed_state_is_refused_with_the_place(change, message):
    record = DriftRecord(("first",))
    record.compare(features({"a": noise(20, 5)}), epoch=0, step=0)
    state = record.state()
    state["first"] |= change
    with pytest.raises(ValueError, match=message):
        record.load(state)


def test_a_state_that_lacks_something_is_refused_with_its_name():
    record = DriftRecord(("first",))
    record.compare(features({"a": noise(20, 5)}), epoch=0, step=0)
    state = record.state()
    del state["first"]["readout"]
    with pytest.raises(ValueError, match=r"^references\.first\.readout is missing$"):
        record.load(state)
