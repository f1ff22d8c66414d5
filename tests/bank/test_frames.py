"""How augmentations are called on volumes and video."""

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.volumes import clips_of, volumes_of
from torch import nn

from kornia_lightning_probe import AugmentationBank


def _drawn(transform, images, layout, **options):
    bank = AugmentationBank({"it": transform}, layout=layout, **options)
    return bank.augment(bank[0], images, block=0)


def _still(count=4, frames=5):
    """Clips whose frames are all alike."""
    return clips_of(count, frames=1).expand(-1, frames, -1, -1, -1)


class _Dimmed(nn.Module):
    """Darkens each image of (B, C, H, W) by a factor of its own, from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images):
        return images * torch.rand(len(images), 1, 1, 1, generator=self.generator)


@pytest.mark.parametrize(
    "transform",
    [
        K.RandomRotation(30.0, p=1.0),
        K.RandomGaussianNoise(std=0.1, p=1.0),
        K.AugmentationSequential(K.RandomRotation(30.0, p=1.0), data_keys=["input"]),
        K.ImageSequential(K.RandomAffine(20.0, p=1.0), K.RandomBrightness((0.5, 1.5), p=1.0)),
        K.RandomMixUpV2(p=1.0),
        K.VideoSequential(K.RandomRotation(30.0, p=1.0)),
        K.VideoSequential(K.RandomRotation(30.0, p=1.0), data_format="BCTHW"),
        K.AugmentationSequential(K.VideoSequential(K.RandomRotation(30.0, p=1.0)), data_keys=["input"]),
        nn.AvgPool2d(3, 1, 1),
        lambda images: images * torch.rand(len(images), 1, 1, 1),
        _Dimmed(),
    ],
)
def test_every_frame_of_a_clip_is_augmented_alike(transform):
    drawn = _drawn(transform, _still(), "video").images[0]
    assert torch.equal(drawn, drawn[:, :1].expand_as(drawn))
    assert not torch.equal(drawn, _still())


@pytest.mark.parametrize("frames", [2, 4])
def test_clips_of_one_video_each_get_their_own_draw(frames):
    # As many frames as clips, or fewer: a draw for each clip is not taken for one for each frame.
    same = clips_of(1, frames=1).expand(4, frames, -1, -1, -1)
    drawn = _drawn(lambda images: images * torch.rand(len(images), 1, 1, 1), same, "video").images[0]
    means = drawn.mean((2, 3, 4))
    assert len(means[:, 0].unique()) == 4
    assert torch.equal(means, means[:, :1].expand_as(means))


def test_a_callable_that_takes_five_axes_gets_whole_clips():
    clips = clips_of(4)
    assert torch.equal(_drawn(lambda video: video.flip(1), clips, "video").images[0], clips.flip(1))


def test_one_clip_of_one_frame_is_augmented_too():
    clips = clips_of(1, frames=1)
    assert torch.equal(_drawn(lambda video: video.flip(-1), clips, "video").images[0], clips.flip(-1))


def test_video_is_normalised_along_its_channels():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    shift, scale = (torch.tensor(values).view(1, 1, 3, 1, 1) for values in (mean, std))
    raw = clips_of(4)
    halved = _drawn(lambda video: video / 2, (raw - shift) / scale, "video", mean=mean, std=std).images[0]
    torch.testing.assert_close(halved * scale + shift, raw / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (K.RandomHorizontalFlip3D(p=1.0), lambda x: x.flip(4)),
        (K.RandomDepthicalFlip3D(p=1.0), lambda x: x.flip(2)),
        (K.AugmentationSequential(K.RandomVerticalFlip3D(p=1.0), data_keys=["input"]), lambda x: x.flip(3)),
        (lambda x: x / 2, lambda x: x / 2),
    ],
)
def test_volumes_are_augmented_by_3d_classes_and_callables(transform, expected):
    volumes = volumes_of(3, channels=2)
    drawn = _drawn(transform, volumes, "volume")
    torch.testing.assert_close(drawn.images[0], expected(volumes), rtol=0, atol=1e-6)
    assert drawn.matrix is None
    assert drawn.changed


def test_a_2d_class_on_volumes_is_an_error_with_the_views_name():
    with pytest.raises(RuntimeError, match=r"Augmentation 'it' .*on images of shape \(3, 1, 8, 12, 12\)"):
        _drawn(K.RandomHorizontalFlip(p=1.0), volumes_of(3), "volume")


def test_what_fails_on_frames_is_named():
    def fails(images):
        raise ZeroDivisionError("no")

    with pytest.raises(RuntimeError, match=r"Augmentation 'it' .*raised ZeroDivisionError .*\(4, 3, 8, 8\): no"):
        _drawn(fails, clips_of(4), "video")


def test_a_view_that_drops_frames_is_refused():
    with pytest.raises(ValueError, match="must keep the number of images and of channels"):
        _drawn(lambda video: video[:, ::2], clips_of(4), "video")
    with pytest.raises(ValueError, match=r"must keep the number of images, of frames and of channels"):
        _drawn(K.VideoSequential(_Halved()), clips_of(4), "video")


class _Halved(nn.Module):
    def forward(self, images):
        return images[::2]


@pytest.mark.parametrize(
    ("layout", "shape", "text"),
    [
        ("image", (2, 3, 5, 8, 8), r"\(B, C, H, W\).*layout='volume' takes \(B, C, D, H, W\) and with layout='video'"),
        ("volume", (3, 5, 8, 8), r"\(B, C, D, H, W\), got \(3, 5, 8, 8\); add a batch dimension to a single volume"),
        ("video", (3, 8, 8), r"\(B, T, C, H, W\), got \(3, 8, 8\)$"),
    ],
)
def test_images_of_another_number_of_axes_are_refused(layout, shape, text):
    with pytest.raises(ValueError, match=text):
        _drawn(torch.square, torch.zeros(shape), layout)


def test_mean_for_each_channel_must_be_as_many_as_channels_wherever_these_are():
    # Five frames of three channels.
    with pytest.raises(ValueError, match="images have 3 channels, but mean has 5 values"):
        _drawn(torch.square, clips_of(2), "video", mean=(0.5,) * 5)


def test_presets_are_for_images_and_video():
    bank = AugmentationBank.preset("default", layout="video")
    assert bank.layout.name == bank.describe()["layout"] == "video"
    with pytest.raises(ValueError, match=r"preset 'default' is 2-D.*RandomHorizontalFlip3D"):
        AugmentationBank.preset("default", layout="volume")


def test_gradients_reach_the_frames_of_a_clip():
    clips = clips_of(2, frames=2)
    bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)}, layout="video")
    unit = bank.to_unit(clips).requires_grad_()
    (flipped,) = bank.draw(bank[0], [clips], [unit], block=0, graph=True).images
    (gradient,) = torch.autograd.grad(flipped[:, :, :, :, 0].sum(), unit)
    # The first column was the last.
    assert gradient[..., -1].unique().tolist() == [1.0]
    assert not gradient[..., :-1].any()
