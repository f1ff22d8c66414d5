import math

import pytest
import torch
import torch.distributed as dist
from support.plain_measures import OURS
from support.probing import images_of, mixed_bank, run, run_on_all, same
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.engine.processes import World


class Breaks(nn.Module):
    """Two layers; between them the features of an image that is black become infinite."""

    def __init__(self):
        super().__init__()
        self.before, self.after, self.head = nn.Conv2d(3, 16, 3), nn.Identity(), nn.Linear(16, 4)

    def forward(self, x):
        features = self.before(x)
        black = x.flatten(1).amax(1) == 0
        return self.head(self.after(torch.where(black.view(-1, 1, 1, 1), math.inf, features)).mean((2, 3)))


def blackens_one(x):
    """Halves, but the image whose first pixel is zero becomes black."""
    return torch.where(x[:, :1, :1, :1] == 0, 0.0, x / 2)


def brightens(x):
    return x / 2 + 0.5


def broken(which, images=None):
    """A probe of 33 images, of which image 20 is not finite in no view, in one view, or without a view."""
    torch.manual_seed(0)
    images = images_of(33)
    images[20, :, 0, 0] = 0.0
    if which == "clean":
        images[20] = 0.0
    halve = blackens_one if which == "one view" else (lambda x: x / 2)
    bank = AugmentationBank({"bright": brightens, "halve": halve})
    return Breaks(), images, bank


def values(result, view=None, layers=None):
    """All values by metric, layer and view."""
    found = {(r.metric, r.layer, r.augmentation): (r.value, r.num_images) for r in result.rows if r.metric in OURS}
    return {k: v for k, v in found.items() if (not view or k[2] == view) and (not layers or k[1] in layers)}


def test_an_image_that_is_not_finite_in_one_view_leaves_all_other_cells_unharmed():
    net, images, bank = broken("none")
    whole = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    _, images, bank = broken("one view")
    result = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    # To the last bit, but for the view's pixels and the layer before, where one image is another and finite.
    assert values(result, "bright") == values(whole, "bright")
    hurt = values(result, "halve", ["after", "head", "output"])
    assert len(hurt) > 10
    same_under_all_views = {"spread", "channel_dominance"}
    for (metric, layer, _), (value, count) in hurt.items():
        assert math.isfinite(value), (metric, layer)
        assert count == (33 if metric in same_under_all_views else 32), (metric, layer)
        if metric in same_under_all_views:
            assert value == values(whole)[metric, layer, "halve"][0]
    assert all(count == 33 for _, count in values(result, "halve", ["input", "before"]).values())
    assert result.metadata["non_finite"] == {"after": [20], "head": [20]}
    (sentence,) = [text for text in result.metadata["warnings"] if "not finite" in text]
    assert "after, head (images 20 of the source)" in sentence


def test_an_image_that_is_not_finite_without_a_view_is_masked_counted_and_named():
    net, images, bank = broken("clean")
    result = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    for (metric, layer, _), (value, count) in values(result).items():
        assert math.isfinite(value), (metric, layer)
        assert count == (33 if layer in ("input", "before") else 32), (metric, layer)
    assert result.metadata["non_finite"] == {"after": [20], "head": [20]}
    assert result.metadata["non_finite_cells"] == 2 * 2


@pytest.mark.parametrize("which", ["none", "one view", "clean"])
def test_simulated_ranks_of_unequal_shares_agree_with_one(which):
    net, images, bank = broken(which)
    alone, *ranks = (
        result
        for size in (1, 3)
        for result in run_on_all(size, net, images, bank, layers=["before", "after", "head"], metrics=None)
    )
    for result in ranks:
        same(result, alone)
        assert result.metadata.get("non_finite") == alone.metadata.get("non_finite")


def on_rank():
    """A probe of 70 images in 3 blocks of which this rank owns two or one; an image of one rank is not finite."""

    def add(tensor):
        dist.all_reduce(tensor)
        return tensor

    def gather(text):
        texts = [None] * dist.get_world_size()
        dist.all_gather_object(texts, text)
        return texts

    torch.manual_seed(0)
    images = images_of(70)
    images[40] = 0.0
    world = (
        World(rank=dist.get_rank(), size=dist.get_world_size(), add=add, gather=gather)
        if dist.is_initialized()
        else None
    )
    bank = AugmentationBank({"bright": brightens})
    return run(Breaks(), images, bank, layers=["before", "after", "head"], metrics=None, world=world)


def test_two_processes_of_unequal_shares_agree_with_one(gloo):
    alone = on_rank()
    assert alone.metadata["non_finite"] == {"after": [40], "head": [40]}
    for result in gloo(2)(on_rank):
        same(result, alone)
        assert result.metadata["non_finite"] == alone.metadata["non_finite"]


class Collapsed(nn.Module):
    """Features that are the same for all images, up to a zero-initialised head."""

    def __init__(self):
        super().__init__()
        self.conv, self.dead, self.head = nn.Conv2d(3, 16, 3), nn.Identity(), nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.dead(self.conv(x).mean((2, 3)) * 0 + 0.1))


def test_a_dead_layer_is_named_and_never_a_number_where_images_are_compared():
    result = run(
        Collapsed(), images_of(33), mixed_bank(), layers=["conv", "dead", "head"], metrics=None, embedding="dead"
    )
    assert result.metadata["dead_layers"] == ["dead", "head"]
    for name in ("sensitivity", "cosine", "spread_ratio", "shared_shift"):
        table = result.table(name)
        for layer in ("dead", "head"):
            column = table.layers.index(layer)
            assert table.value[:, column].isnan().all(), (name, layer)
        assert table.value[:, table.layers.index("conv")].isfinite().all()
    assert result.value("spread", "dead") == 0
    assert math.isnan(result.value("channel_median", "dead"))
    # All distances tie; the prediction never changes.
    assert result.value("retrieval_auc", "dead") == 0.5
    assert result.value("flip_rate") == result.value("js_divergence") == 0
