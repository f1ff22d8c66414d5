import math

import pytest
import torch
from support.made_results import table_of, views_of
from support.nets import SmallCNN
from support.probing import images_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets, probe_model
from kornia_lightning_probe.randomness import isolated_rng
from kornia_lightning_probe.results.tables import ImageScores, ViewInfo

NAN = float("nan")


def result_of(moved, *, apart=None, labels=None, ids=None, views=None):
    """One layer; `moved` is (V, N)."""
    moved = torch.tensor(moved).unsqueeze(1)
    apart = torch.ones(2, *moved.shape[1:]) if apart is None else torch.tensor(apart).expand(2, *moved.shape[1:])
    labels = None if labels is None else torch.tensor(labels)
    images = ImageScores(("fc",), moved, apart, labels)
    views = views or [ViewInfo("turn", level, float(level)) for level in range(1, 1 + len(moved))]
    metadata = {} if ids is None else {"image_ids": ids}
    return ProbeResult(layers=["fc"], views=views, tables={}, metadata=metadata, images=images)


def small_cnn():
    with isolated_rng(3):
        return SmallCNN()


@pytest.fixture(scope="module")
def measured():
    bank = AugmentationBank({"turn": presets.rotation((5, 30)), "dark": presets.darken((-0.1, -0.3))})
    labels = torch.arange(70) % 3
    return probe_model(small_cnn(), images_of(70), bank, labels=labels, metrics=["sensitivity"])


def test_the_mean_over_images_is_the_squared_sensitivity(measured):
    for place, view in enumerate(measured.views):
        for column, layer in enumerate(measured.images.layers):
            value = measured.value("sensitivity", layer, view.augmentation, view.level)
            mean = measured.images.moved[place, column].mean()
            assert float(mean.sqrt()) == pytest.approx(value, rel=1e-5)
    assert measured.images.layers == ("input", *measured.layers)
    torch.testing.assert_close(measured.images.apart.mean(2), torch.ones(2, len(measured.images.layers)))
    assert measured.images.labels.tolist() == [number % 3 for number in measured.metadata.image_ids]


def test_the_worst_images_are_those_that_moved_furthest_and_go_by_their_number_in_the_dataset():
    rows = result_of([[0.0, 4.0, 1.0], [0.0, 0.0, 9.0]], ids=[10, 20, 30], labels=[5, 6, -1]).worst_images()
    # sqrt of the means over both views: 0, 2 and 5.
    assert [(row.image, row.label) for row in rows] == [(30, None), (20, 6), (10, 5)]
    assert [row.score for row in rows] == pytest.approx([5**0.5, 2**0.5, 0.0])
    assert {(row.augmentation, row.level) for row in rows} == {(None, None)}


def test_of_one_view_the_score_is_that_of_the_view():
    result = result_of([[0.0, 4.0, 1.0], [0.0, 0.0, 9.0]])
    (row,) = result.worst_images("fc", "turn", 1, n=1)
    assert row == (1, 2.0, None, "turn", 1)


def test_an_image_without_a_value_is_no_worst_image_and_takes_no_part():
    result = result_of([[NAN, 4.0], [NAN, NAN]])
    assert [(row.image, row.score) for row in result.worst_images()] == [(1, 2.0)]


def test_the_default_layer_is_the_embedding(measured):
    embedding = measured.metadata.embedding
    assert measured.worst_images() == measured.worst_images(embedding)
    assert measured.worst_images() != measured.worst_images("input")
    (worst, *_) = measured.worst_images(n=70)
    column = measured.images.layers.index(embedding)
    scores = measured.images.moved[:, column].mean(0).sqrt()
    assert worst.score == pytest.approx(float(scores.max()), rel=1e-5)
    assert worst.image == measured.metadata.image_ids[int(scores.argmax())]


def test_an_image_that_alone_moves_is_found():
    def spoil(batch):
        changed = batch.clone()
        white = batch.amax((1, 2, 3)) >= 0.999
        changed[white] = 1 - changed[white]
        return changed

    images = images_of(40) * 0.9
    images[17, 0, 0, 0] = 1.0
    result = probe_model(small_cnn(), images, AugmentationBank({"spoil": spoil}), metrics=["sensitivity"])
    first, second = result.worst_images(n=2)
    assert first.image == 17
    assert second.score == 0.0


def test_a_labels_value_is_the_sensitivity_of_its_images_beside_the_distance_between_all():
    rows = result_of([[1.0, 1.0, 4.0, 4.0]], labels=[0, 0, 1, 1]).by_label()
    assert [(row.label, row.value, row.num_images) for row in rows] == [(1, 2.0, 2), (0, 1.0, 2)]
    # All images of a label move alike and lie equally far apart: no error.
    assert [row.std_error for row in rows] == pytest.approx([0.0, 0.0])


def test_labels_weighted_by_their_images_give_the_sensitivity_of_all(measured):
    rows = measured.by_label()
    assert {row.label for row in rows} == {0, 1, 2}
    moved = sum(row.num_images * row.value**2 for row in rows) / 70
    column = measured.images.layers.index(measured.metadata.embedding)
    assert moved == pytest.approx(float(measured.images.moved[:, column].mean()), rel=1e-5)


def test_a_label_of_one_image_has_no_error_and_images_without_a_label_take_no_part():
    rows = result_of([[1.0, 4.0, 9.0, 9.0]], labels=[0, 1, -1, -1]).by_label()
    assert [(row.label, row.value) for row in rows] == [(1, 2.0), (0, 1.0)]
    assert all(math.isnan(row.std_error) for row in rows)


def test_the_error_of_a_label_is_the_spread_over_draws_of_images():
    generator = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(400):
        squares = torch.randn(2, 96, 6, generator=generator).square().sum(2)
        apart = squares[1] / squares[1].mean()
        # Images that lie far out move far, so that both parts of the error count.
        moved = (squares[0] + 2 * squares[1]) / (2 * squares[1].mean())
        labels = [0] * 32 + [1] * 64
        images = ImageScores(("fc",), moved.view(1, 1, 96), apart.expand(2, 1, 96), torch.tensor(labels))
        result = ProbeResult(layers=["fc"], views=views_of({"turn": (1.0,)}), tables={}, images=images)
        row = next(row for row in result.by_label() if row.label == 0)
        values.append(row.value)
        errors.append(row.std_error)
    # 400 draws know a spread to 1/sqrt(800), 3.5 %; three of those.
    assert sum(errors) / 400 == pytest.approx(torch.tensor(values).std().item(), rel=0.11)


def test_the_worst_case_takes_each_image_at_its_own_worst_level():
    views = [ViewInfo("turn", 1, -5.0), ViewInfo("turn", 2, 5.0), ViewInfo("blur", 1, 1.0)]
    images = ImageScores(("fc",), torch.tensor([[[1.0, 0.0]], [[0.0, 7.0]], [[4.0, 4.0]]]), torch.ones(2, 1, 2))
    table = table_of(("fc",), [[0.7], [1.9], [2.0]])
    result = ProbeResult(layers=["fc"], views=views, tables={"sensitivity": table, "other": table}, images=images)
    # sqrt((1 + 7) / 2) and sqrt((4 + 4) / 2)
    assert {row.augmentation: row.worst for row in result.severity()} == {"turn": 2.0, "blur": 2.0}
    assert all(math.isnan(row.worst) for row in result.severity("other"))
    assert all(math.isnan(row.worst) for row in result.without_influence().severity())


def test_of_one_view_the_worst_case_is_the_sensitivity(measured):
    alone = probe_model(
        small_cnn(), images_of(70), AugmentationBank({"dark": presets.darken((-0.1,))}), metrics=["sensitivity"]
    )
    for row in alone.severity():
        assert row.worst == pytest.approx(alone.value("sensitivity", row.layer), rel=1e-5)
    # Of several it is no less than that of any.
    for row in measured.severity():
        assert row.worst >= row.worst_value * (1 - 1e-5)


def test_what_is_asked_for_must_be_there(measured):
    with pytest.raises(ValueError, match="n must be a number of images, at least 1, got 0"):
        measured.worst_images(n=0)
    with pytest.raises(ValueError, match="'nothere'"):
        measured.worst_images("nothere")
    with pytest.raises(ValueError, match="no level 3 of turn"):
        measured.worst_images(None, "turn", 3)
    with pytest.raises(ValueError, match="kept of 'sensitivity' only, got 'cosine'"):
        measured.by_label("cosine")
    with pytest.raises(ValueError, match="the images have no labels"):
        result_of([[1.0, 2.0]]).by_label()
    with pytest.raises(ValueError, match="own movement isn't kept here"):
        measured.without_influence().worst_images()


def test_a_dead_layer_has_no_worst_image():
    class Dead(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 4)

    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.Sequential(nn.Linear(8, 4), Dead()))
    with pytest.warns(UserWarning, match="same activation|dead"):
        result = probe_model(
            net, images_of(8), AugmentationBank({"dark": presets.darken()}), layers=["1", "2"], metrics=["sensitivity"]
        )
    assert result.worst_images("2") == ()
