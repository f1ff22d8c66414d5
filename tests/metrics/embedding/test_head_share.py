import math

import pytest
import torch
from support.activations import LAYER, about, normal
from support.probing import images_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.activations.site import HeadSpace
from kornia_lightning_probe.metrics import HeadShare


def span(*columns, width=6):
    """The space of some coordinates."""
    return HeadSpace(torch.eye(width, dtype=torch.float64)[:, list(columns)])


def share(space, clean, moved):
    ready = HeadShare(space).prepare(["view"], [LAYER], len(clean))
    ready.update(clean, moved, about(clean, moved))
    return ready.estimates()


def test_movement_along_the_heads_directions_reads_one_and_across_them_none():
    clean = normal(8, 6)
    along, across = torch.zeros(8, 6), torch.zeros(8, 6)
    along[:, :2] = normal(8, 2, seed=1)
    across[:, 2:] = normal(8, 4, seed=1)
    assert share(span(0, 1), clean, clean + along).value.item() == pytest.approx(1.0)
    assert share(span(0, 1), clean, clean + across).value.item() == pytest.approx(0.0, abs=1e-12)


def test_movement_in_all_directions_alike_reads_chance():
    # Of 6 directions 2 are read: a third. 2000 images, whose share has a deviation below .3.
    clean = normal(2000, 6)
    found = share(span(0, 1), clean, clean + normal(2000, 6, seed=1))
    assert abs(found.value.item() - 1 / 3) < 4 * found.std_error.item() < 0.05


def test_where_nothing_moves_there_is_no_share():
    clean = normal(4, 6)
    assert math.isnan(share(span(0), clean, clean).value)


def test_the_error_is_the_spread_over_draws():
    ready = HeadShare(span(0, 1)).prepare(range(300), [LAYER], 64)
    for view in range(300):
        clean = normal(64, 6, seed=2 * view)
        moved = clean + normal(64, 6, seed=2 * view + 1)
        ready.update(clean, moved, about(clean, moved, view_index=view))
    found = ready.estimates()
    # 300 draws know a spread to 1/sqrt(600), 4 %; three of those.
    assert (found.std_error.mean() / found.value.std()).item() == pytest.approx(1, abs=0.12)


class Net(nn.Module):
    """Features of eight directions, and a head of three classes on them."""

    def __init__(self, *, maps=False, probabilities=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)
        self.maps, self.probabilities = maps, probabilities

    def forward(self, images):
        maps = self.body(images)
        features = maps.mean((2, 3)) if self.maps else self.features(maps)
        scores = self.head(features)
        return scores.softmax(1) if self.probabilities else scores


def probed(net, bank=None, **options):
    torch.manual_seed(0)
    bank = bank or AugmentationBank({"dark": presets.darken()})
    return probe_model(net, images_of(40), bank, **{"metrics": ["sensitivity", "head_share"]} | options)


@pytest.mark.parametrize("maps", [False, True])
def test_a_probe_finds_the_head_and_reads_what_the_prediction_can_see(maps):
    torch.manual_seed(1)
    net = Net(maps=maps).eval()
    layers = ["body"] if maps else ["body", "features"]
    result = probed(net, layers=layers)
    assert result.metadata["embedding"] == layers[-1]
    images = images_of(40)

    def embedding(batch):
        maps = net.body(batch)
        return (maps.mean((2, 3)) if net.maps else net.features(maps)).double()

    # Plain: the projection onto the differences of the rows of W.
    with torch.no_grad():
        rows = (net.head.weight - net.head.weight.mean(0)).double()
        project = torch.linalg.pinv(rows, rtol=1e-6) @ rows
        for level, offset in enumerate((0.1, 0.2, 0.3), start=1):
            moved = embedding((images - offset).clamp(0, 1)) - embedding(images)
            expected = (moved @ project).square().sum() / moved.square().sum()
            found = result.value("head_share", layers[-1], "dark", level)
            assert found == pytest.approx(expected.item(), rel=1e-4)
    head = result.metadata["head"]
    assert (head["directions"], head["features"], head["chance"]) == (2, 8, 0.25)
    assert 0 < head["between_images"] < 1
    assert f"beside head_share: {head['between_images']:.2f} of the differences between images" in result.summary(
        full=True
    )


def test_a_view_that_moves_the_scores_alike_moves_nothing_that_the_head_tells_apart():
    torch.manual_seed(1)
    net = Net().eval()
    with torch.no_grad():
        # All three rows share their first coordinate.
        net.head.weight[:, 0] = 1.0

    class Pushed(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.features = features

        def forward(self, maps):
            brightness = maps.mean((1, 2, 3), keepdim=False)
            return self.features(maps * 0) + torch.eye(8)[0] * brightness.unsqueeze(1)

    net.features = Pushed(net.features)
    result = probed(net, layers=["body", "features"])
    assert result.value("head_share") == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (Net(probabilities=True), ["body", "features"]),
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 3), nn.ReLU(), nn.Linear(3, 5)), ["1", "2"]),
    ],
    ids=["probabilities", "as many directions as features"],
)
def test_where_the_output_is_no_product_of_the_embedding_or_reads_all_of_it_there_is_none(net, layers):
    with pytest.warns(UserWarning, match="'head_share'.*it needs an output that is one matrix product"):
        result = probed(net.eval(), layers=layers)
    assert "head_share" not in result.metrics
    assert "head" not in result.metadata


def test_batch_size_changes_nothing():
    torch.manual_seed(1)
    net = Net().eval()
    one, other = (probed(net, layers=["features"], batch_size=size) for size in (7, 100))
    torch.testing.assert_close(one.tensor("head_share"), other.tensor("head_share"), rtol=1e-5, atol=1e-6)


def test_under_autocast_the_head_is_found_though_it_computes_more_coarsely():
    torch.manual_seed(1)
    net = Net().eval()

    def forward(model, images):
        with torch.autocast("cpu", torch.bfloat16):
            return model(images)

    plain, mixed = probed(net, layers=["features"]), probed(net, layers=["features"], forward=forward)
    assert mixed.value("head_share") == pytest.approx(plain.value("head_share"), rel=0.1)


def test_one_logit_reads_the_direction_of_its_row():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    result = probed(net, layers=["1", "2"], labels=[0, 1] * 20)
    assert result.metadata["head"]["directions"] == 1
    assert 0 < result.value("head_share") < 1
