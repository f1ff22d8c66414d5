import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.activations.layout import Layout, layout_of
from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.activations.site import Site

HFLIP = AugmentationBank({"hflip": K.RandomHorizontalFlip(p=1.0)})


@pytest.mark.parametrize(
    ("shape", "image_size", "size"),
    [
        ((5, 4, 6), None, (4, 6)),
        ((7, 7, 7), None, (7, 7)),
        # As many channels as rows: ResNet's first stage on an image of 256 x 512.
        ((64, 64, 128), (256, 512), (64, 128)),
        ((16, 16, 32), (64, 128), (16, 32)),
        # Half as many channels as rows, behind unpadded convolutions that took 4 pixels off both sides.
        ((30, 60, 124), (64, 128), (60, 124)),
        ((3, 64, 128), (64, 128), (64, 128)),
    ],
)
def test_three_axes_are_channels_and_a_map(shape, image_size, size):
    assert layout_of(shape, image_size=image_size) == Layout("map", size)


@pytest.mark.parametrize(
    ("shape", "image_size", "size"),
    [
        ((7, 7, 768), None, (7, 7)),
        ((15, 15, 16), (224, 224), (15, 15)),
        ((16, 32, 24), (64, 128), (16, 32)),
        ((7, 10, 768), (224, 320), (7, 10)),
        # 20 x 32 is nearly the shape of the image, too; 12 x 20 is exactly.
        ((12, 20, 32), (96, 160), (12, 20)),
        ((23, 40, 64), (90, 160), (23, 40)),
        # 64 x 192 is as much smaller than 128 x 256 along both sides, and of another shape.
        ((32, 64, 192), (256, 512), (32, 64)),
        ((56, 64, 96), (224, 256), (56, 64)),
        # Patches of 4 pixels rounded down, merged two by two and rounded up.
        ((28, 38, 192), (225, 300), (28, 38)),
    ],
)
def test_channels_are_last_where_only_the_first_two_sides_are_those_of_an_image(shape, image_size, size):
    assert layout_of(shape, image_size=image_size) == Layout("channels last", size)


@pytest.mark.parametrize(
    ("tokens", "image_size", "size", "has_class_token"),
    [
        (36, None, (6, 6), False),
        (37, None, (6, 6), True),
        (36, (16, 36), (4, 9), False),
        (33, (64, 128), (4, 8), True),
        (280, (224, 320), (14, 20), False),
        # 10 x 11 is nearly a square, and 7 x 11 nearly half as high as wide; no square patches make up either.
        (110, (224, 224), None, False),
        (77, (64, 128), None, False),
        # Patches of 16 pixels, the last pixels left over.
        (253, (225, 300), (14, 18), True),
        (78, (100, 220), (6, 13), False),
        # A class token and four registers before 4 x 8 patches: no grid that is known, and not 4 x 9.
        (37, (128, 256), None, False),
        (2, None, None, False),
    ],
)
def test_tokens_lie_on_a_grid_of_square_patches_that_make_up_the_image(tokens, image_size, size, has_class_token):
    assert layout_of((tokens, 8), image_size=image_size) == Layout("tokens", size, has_class_token)


def test_a_class_token_makes_one_more_than_a_square():
    assert [tokens for tokens in range(1, 51) if layout_of((tokens, 8)).has_class_token] == [5, 10, 17, 26, 37, 50]


def test_other_activations_lie_on_no_grid():
    assert layout_of(()) == layout_of((10,)) == Layout("vector")
    assert layout_of((10, 4, 4, 4)) == Layout("other")


def _images(*size):
    return torch.rand(8, 3, *size, generator=torch.Generator().manual_seed(0))


def _equivariant(channels):
    """Cells of 4 x 4 pixels, mixed over channels: they move as the image does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, channels, 1), nn.ReLU())


class _Permuted(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(*self.axes).contiguous()


class _Tokens(nn.Module):
    """(B, C, H, W) to (B, H W, C), after a class token of ones where there is one."""

    def __init__(self, class_tokens):
        super().__init__()
        self.class_tokens = class_tokens

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return torch.cat([torch.ones_like(tokens[:, : self.class_tokens]), tokens], 1)


@pytest.mark.parametrize(
    ("channels", "size", "last"),
    [
        (16, (64, 128), nn.Identity()),
        (24, (64, 128), _Permuted(0, 2, 3, 1)),
        (8, (16, 36), _Tokens(0)),
        (8, (16, 32), _Tokens(1)),
    ],
    ids=["as many channels as rows", "channels last", "tokens", "tokens and a class token"],
)
def test_what_moves_with_the_image_reads_zero_in_any_layout_of_images_that_are_not_square(channels, size, last):
    model = nn.Sequential(_equivariant(channels), last)
    result = probe_model(model, _images(*size), HFLIP, layers=["1"])
    assert result.value("equivariance_error", "1") == pytest.approx(0.0, abs=1e-5)
    # The mean over a mirrored map is that of the map, up to the rounding of float32.
    pooled = "1:patch" if getattr(last, "class_tokens", 0) else "1"
    assert result.value("sensitivity_pooled", pooled) == pytest.approx(0.0, abs=1e-4)
    assert result.value("sensitivity", "1") == pytest.approx(0.0, abs=1e-4)
    assert result.value("sensitivity_flat", "1") > 0.5


@pytest.mark.parametrize(
    ("shape", "is_folded", "kind", "has_class_token"),
    [
        # (C, T, H, W), also with as many channels as frames, or after a stride in time.
        ((64, 16, 8, 8), False, "other", False),
        ((16, 16, 8, 8), False, "other", False),
        ((16, 8, 8, 8), False, "other", False),
        # Time does not grow.
        ((16, 64, 8, 8), False, "depth first", False),
        ((16, 8, 8, 8), True, "depth first", False),
        # Tokens of each frame; a vector for each frame; a map of the clip as a whole.
        ((16, 49, 96), True, "channels last", False),
        ((16, 96), True, "tokens", False),
        ((64, 8, 8), False, "map", False),
        # Patches of 2 x 16 x 16: 8 x 14 x 14 of them.
        ((1568, 96), False, "tokens", False),
        ((1569, 96), False, "tokens", True),
        ((512,), False, "vector", False),
    ],
)
def test_the_layout_of_video_is_that_of_torch_unless_frames_say_otherwise(shape, is_folded, kind, has_class_token):
    layout = layout_of(shape, image_size=(224, 224), depth=16, is_folded=is_folded)
    assert (layout.kind, layout.has_class_token) == (kind, has_class_token)


@pytest.mark.parametrize(
    ("shape", "is_folded", "features"),
    [((4, 5, 6, 7), False, (4,)), ((5, 4, 6, 7), True, (4,)), ((5, 9, 4), True, (4,)), ((5, 4), True, (4,))],
)
def test_features_of_volumes_and_video_are_means_over_all_axes_but_the_channels(shape, is_folded, features):
    activation = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    (readout,) = [
        readout
        for readout in readouts_of(Site("layer", 1, shape, image_size=(6, 7), depth=5, is_folded=is_folded))
        if readout.site.representation == "pooled"
    ]
    axis = shape.index(4) + 1
    means = activation.movedim(axis, 1).flatten(2).mean(2)
    assert readout.site.shape == features
    torch.testing.assert_close(readout.take(activation), means)
