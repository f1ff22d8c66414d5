import math
import pickle

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
import torch.distributed as dist
from support.activations import assert_same, normal
from support.nets import UNet
from support.probing import images_of, mirrored
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.metrics import About, Site
from kornia_lightning_probe.metrics.outputs.segmentation import PixelFlipRate

SIZE = (8, 8)
STILL = torch.eye(3)
FLIP = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
DOWN = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]])


def about(clean, augmented, matrix, *, size=SIZE, ids=None):
    matrices = matrix if matrix is None or matrix.ndim == 3 else matrix.expand(len(clean), 3, 3)
    return About.of(clean, augmented, layer="output", matrix=matrices, image_size=size, ids=ids)


def table(clean, augmented, matrix, **options):
    ready = PixelFlipRate().prepare(["view"], ["output"], len(clean))
    record = about(clean, augmented, matrix, **options)
    ready.update(record.clean, record.augmented, record)
    return ready.table.flatten()


def rate(*args, **options):
    return float(table(*args, **options).mean())


def scores(count=4, classes=3, side=8, seed=0):
    return normal(count, classes, side, side, seed=seed, dtype=torch.float32)


def test_a_constant_added_to_all_scores_flips_nothing():
    assert rate(scores(), scores() + 5, STILL) == 0


def test_pixels_that_change_are_counted():
    # A quarter of the first image's pixels get another class, and none of the others': a mean of 1/16.
    clean = scores()
    changed = clean.clone()
    changed[0, :, :4, :4] = clean[0, :, :4, :4].roll(1, 0)
    assert table(clean, changed, STILL).tolist() == [0.25, 0, 0, 0]


@pytest.mark.parametrize("matrix", [FLIP, DOWN], ids=["flip", "shift"])
def test_a_network_that_moves_along_keeps_all_classes(matrix):
    clean = scores()
    moved = clean.flip(-1) if matrix is FLIP else clean.roll(2, 2)
    # What the roll brings in from the other side has no source and is not counted.
    assert rate(clean, moved, matrix) == 0


def test_a_network_that_ignores_the_move_reads_as_often_as_two_pixels_differ():
    # Independent cells of 3 equal classes differ with probability 2/3; 64 images of 36 cells in 18 pairs.
    clean = scores(64)
    assert rate(clean, clean, FLIP) == pytest.approx(2 / 3, abs=4 * (2 / 9 / (64 * 18)) ** 0.5)


def test_only_pixels_with_a_source_count_without_the_edge():
    # Two rows down: rows 0 and 1 have no source, row 2, row 7 and both side columns are the edge.
    clean = scores(1)
    moved = clean.roll(2, 2)
    for row, counted in ((0, False), (1, False), (2, False), (3, True), (6, True), (7, False)):
        wrong = moved.clone()
        wrong[0, :, row] = moved[0, :, row].roll(1, 0)
        assert (rate(clean, wrong, DOWN) > 0) is counted


def test_an_image_that_a_geometric_view_leaves_in_place_is_compared_in_place_and_whole():
    clean = scores(2)
    moved = torch.stack([clean[0], clean[1].flip(-1)])
    moved[0, :, 0, 0] = clean[0, :, 0, 0].roll(1, 0)
    assert table(clean, moved, torch.stack([STILL, FLIP])).tolist() == [1 / 64, 0]


def test_a_view_without_a_matrix_is_not_measured():
    ready = PixelFlipRate().prepare(["view"], ["output"], 4)
    record = about(scores(), scores(), None)
    ready.update(record.clean, record.augmented, record)
    assert not ready.filled.any()
    assert ready.compute().value.isnan()


def test_an_image_that_leaves_the_frame_is_not_a_number():
    away = torch.tensor([[1.0, 0.0, 20.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert table(scores(), scores(), away).isnan().all()


@pytest.mark.parametrize("side", ["clean", "augmented"])
@pytest.mark.parametrize("matrix", [STILL, FLIP], ids=["still", "flip"])
def test_scores_that_are_not_finite_are_left_out_and_no_other_image_moves(side, matrix):
    clean, augmented = scores(), scores(seed=1)
    whole = table(clean, augmented, matrix)
    {"clean": clean, "augmented": augmented}[side][2, 1, 4, 4] = math.nan
    found = table(clean, augmented, matrix)
    assert found.isnan().nonzero().flatten().tolist() == [2]
    assert torch.equal(found[found.isfinite()], whole[[0, 1, 3]])


def test_a_smaller_output_is_carried_on_its_own_grid():
    # 16 pixels on 8 cells: a flip of pixels is a flip of cells.
    flip = FLIP.clone()
    flip[0, 2] = 15.0
    assert rate(scores(), scores().flip(-1), flip, size=(16, 16)) == 0


@pytest.mark.parametrize(
    ("site", "applies"),
    [
        (Site("output", 3, (5, 8, 8), "output"), True),
        (Site("output", 3, (5, 2, 8), "output"), False),
        (Site("output", 3, (5,), "output"), False),
        (Site("head", 3, (5, 8, 8)), False),
    ],
)
def test_it_applies_to_a_segmentations_output(site, applies):
    assert PixelFlipRate().applies_to(site) is applies


def test_copies_go_on_alone_and_options_reach_torchmetrics():
    clean, augmented = scores(), scores(seed=1)
    record = about(clean, augmented, FLIP)
    ready = PixelFlipRate(compute_with_cache=False).prepare(["view"], ["output"], 4)
    ready.update(record.clean, record.augmented, record)
    for copied in (ready.clone(), pickle.loads(pickle.dumps(ready))):  # noqa: S301 - our own
        assert_same(copied.compute(), ready.compute())
        assert not copied.compute_with_cache
        copied.reset()
        assert ready.filled.all()


def on_rank(clean, augmented, shares):
    ready = PixelFlipRate().prepare(["view"], ["output"], len(clean))
    for ids in shares[dist.get_rank()]:
        record = about(clean[list(ids)], augmented[list(ids)], FLIP, ids=ids)
        ready.update(record.clean, record.augmented, record)
    return ready.compute()


def test_unequal_shares_of_two_processes_are_pooled(gloo):
    clean, augmented = scores(7), scores(7, seed=1)
    augmented[5, 0, 3, 3] = math.nan
    known = table(clean, augmented, FLIP)
    for found in gloo(2)(on_rank, clean, augmented, [[range(2), range(2, 5)], [range(5, 7)]]):
        assert found.value == pytest.approx(known.nanmean().item())
        assert found.num_images == 6


# In a probe.


class Segmenter(nn.Module):
    """Scores of each pixel or, with a stride, of each patch, from that pixel or patch alone."""

    def __init__(self, stride=1):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 1)
        self.stride = stride

    def forward(self, x):
        return {"out": self.head(nn.functional.avg_pool2d(x, self.stride))}


def probed(model, bank, images=None, **options):
    torch.manual_seed(0)
    images = images_of(10, size=24) if images is None else images
    return probe_model(model, images, bank, layers=["head"], metrics=[PixelFlipRate()], **options)


def smooth(count=10):
    """Images whose neighbours are alike, as those of real ones are."""
    coarse = images_of(count, size=4)
    return nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic", align_corners=False).clamp(0, 1)


# A mixture of changed and unchanged images is what these two are about.
MIXTURE = "ignore:these views change only part of the images:UserWarning"


def hflip(p=1.0):
    return K.RandomHorizontalFlip(p=p)


@pytest.mark.filterwarnings(MIXTURE)
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("p", [1.0, 0.5])
def test_an_equivariant_network_flips_no_pixel(stride, p):
    result = probed(Segmenter(stride), AugmentationBank({"hflip": hflip(p)}))
    assert result.value("pixel_flip_rate", "output") == 0
    assert result.table("pixel_flip_rate").num_images.item() == 10


def test_under_a_rotation_few_classes_change_where_in_place_many_would():
    torch.manual_seed(0)
    model, images = Segmenter(), smooth()
    rotation = K.RandomRotation((20.0, 20.0), p=1.0)
    value = probed(model, AugmentationBank({"rotation": rotation}), images).value("pixel_flip_rate")
    in_place = (model(images)["out"].argmax(1) != model(rotation(images))["out"].argmax(1)).double().mean()
    assert value < 0.1
    assert in_place > 3 * value


def test_photometric_views_are_compared_in_place_and_unknown_ones_not_at_all():
    torch.manual_seed(0)
    model, images = Segmenter(), images_of(10, size=24)
    darker = K.RandomBrightness((0.5, 0.5), p=1.0)
    result = probed(model, AugmentationBank({"darker": darker, "own": mirrored}), images)
    changed = (model(images)["out"].argmax(1) != model(darker(images))["out"].argmax(1)).double().mean()
    assert result.value("pixel_flip_rate", "output", "darker") == pytest.approx(changed.item())
    assert math.isnan(result.value("pixel_flip_rate", "output", "own"))


class Strided(Segmenter):
    """Scores of every fourth pixel, which lie at its corner and not in the middle of four."""

    def forward(self, x):
        return {"out": self.head(x[..., ::4, ::4])}


def test_scores_are_carried_on_the_grid_where_they_lie():
    # Pixel 4 i of 24 goes to 23 - 4 i under a flip, which lies between cells; on a grid that tiles the image, cell i
    # would go to cell 5 - i, three pixels beside it.
    torch.manual_seed(0)
    model, images = Strided(), smooth()
    result = probed(model, AugmentationBank({"hflip": hflip()}), images)
    assert result.metadata["grids"]["output"] == {
        "size": [6, 6], "stride": [4.0, 4.0], "offset": [0.0, 0.0], "spread": [0.0, 0.0]
    }  # fmt: skip
    before, after = (model(x)["out"].argmax(1) for x in (images, images.flip(-1)))
    as_if_tiling = (after != before.flip(-1)).double().mean()
    assert result.value("pixel_flip_rate", "output") < as_if_tiling / 2


class Enlarged(Segmenter):
    """Scores of every fourth pixel, enlarged to all of them."""

    def forward(self, x):
        coarse = self.head(x[..., ::4, ::4])
        return {"out": nn.functional.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)}


@pytest.mark.parametrize("net", [UNet, Enlarged])
def test_scores_of_every_pixel_are_carried_as_pixels_are_whatever_they_were_made_of(net):
    # The branches of the one disagree by up to 7 pixels, and what the other sees lies 1.5 pixels beside what it says.
    torch.manual_seed(0)
    model, images = net().eval(), smooth()
    bank = AugmentationBank({"hflip": hflip()})
    result = probe_model(model, images, bank, layers="re:inc|head", metrics=[PixelFlipRate()])
    assert result.metadata["grids"]["output"] == result.metadata["grids"]["input"]

    def classes(x):
        with torch.no_grad():
            output = model(x)
        return (output["out"] if isinstance(output, dict) else output).argmax(1)

    # A flip of pixels needs no interpolation; the rim is not counted.
    changed = (classes(images.flip(-1)) != classes(images).flip(-1))[:, 1:-1, 1:-1]
    assert result.value("pixel_flip_rate", "output") == pytest.approx(changed.double().mean().item())


class Spectral(Segmenter):
    """Scores behind a Fourier transform, of which nobody knows where they lie."""

    def forward(self, x):
        return {"out": torch.fft.fft2(self.head(x)).real}


def test_scores_whose_places_are_unknown_are_compared_in_place_only():
    darker = K.RandomBrightness((0.5, 0.5), p=1.0)
    bank = AugmentationBank({"darker": darker, "hflip": hflip()})
    told = r"left out of pixel_flip_rate under views that move pixels, as it is not known where .*'output' \(_fft_c2c"
    with pytest.warns(UserWarning, match=told):
        result = probed(Spectral(), bank)
    assert result.value("pixel_flip_rate", "output", "darker") >= 0
    assert math.isnan(result.value("pixel_flip_rate", "output", "hflip"))
    assert "pixel_flip_rate under views that move pixels at output" in result.metadata["left_out"]


def test_what_a_chain_cuts_off_and_pads_again_in_place_is_not_counted():
    # A crop of the 16 in the middle and a pad by 4: no pixel moves, and those of the rim are lost.
    chain = nn.Sequential(K.CenterCrop(16), K.RandomCrop((24, 24), padding=4))
    assert probed(Segmenter(), AugmentationBank({"rim": chain})).value("pixel_flip_rate", "output") == 0


@pytest.mark.filterwarnings(MIXTURE)
@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_the_batch_size_does_not_matter(batch_size):
    bank = AugmentationBank({"rotation": K.RandomRotation((20.0, 20.0), p=1.0), "hflip": hflip(0.5)})
    torch.testing.assert_close(
        probed(Segmenter(), bank, smooth(), batch_size=batch_size).tensor("pixel_flip_rate"),
        probed(Segmenter(), bank, smooth()).tensor("pixel_flip_rate"),
    )
