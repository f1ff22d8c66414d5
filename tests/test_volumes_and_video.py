"""Volumes and video from the images to the result, in probe_model and in a training."""

import kornia.augmentation as K  # noqa: N812
import lightning.pytorch as pl
import pytest
import torch
from support.trainings import QUIET
from support.volumes import FrameByFrame, InTime, UNet3d, clips_of, volumes_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, SensitivityProbe, probe_model
from kornia_lightning_probe.metrics import ProbeMetric

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def _volume_bank(**more):
    views = {"flip": K.RandomHorizontalFlip3D(p=1.0), "turn": {10: K.RandomRotation3D((10.0, 10.0, 10.0), p=1.0)}}
    return AugmentationBank(views | more, layout="volume")


def _video_bank(**views):
    return AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)} | views, layout="video")


PLAIN = AugmentationBank({"half": lambda x: x / 2})


def test_a_unet_of_volumes_is_measured_from_stem_to_head():
    volumes = volumes_of(40, depth=8, size=16)
    result = probe_model(UNet3d(), volumes, _volume_bank(dark=lambda x: x / 2))
    assert result.layers[0] == "model.0"
    assert result.layers[-1] == "model.2.1"
    assert result.tensor("sensitivity").isfinite().all()
    # Kornia calls both geometric, so features are averaged over all three axes before they are compared.
    assert [view.moves_pixels for view in result.views] == [True, True, False]
    assert result.metadata["shapes"]["model.0"] == [4, 4, 8, 8]
    assert result.metadata["views_without_matrix"] == ["flip", "turn", "dark"]


def test_the_mean_over_a_mirrored_volume_stays():
    # A convolution of one cell commutes with a flip: as a map it moves, its mean over cells doesn't.
    net = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Conv3d(4, 2, 1))
    result = probe_model(net, volumes_of(10), _volume_bank(), layers=["0"])
    assert result.value("sensitivity", "0", "flip") == pytest.approx(0.0, abs=1e-4)
    assert result.value("sensitivity_flat", "0", "flip") > 0.5


class Width(ProbeMetric):
    """How many features a layer has once it is pooled."""

    name = "width"
    representation = "pooled"
    statistics = ("width",)

    def measure(self, clean, augmented, about):
        return {"width": torch.full((len(clean),), float(clean.shape[1]))}


@pytest.mark.parametrize("channels", [5, 6, 2])
@pytest.mark.parametrize("net", [FrameByFrame, InTime])
def test_a_net_of_clips_is_pooled_over_time_and_space(net, channels):
    # What is left are the channels, also where there are as many as frames, or fewer.
    result = probe_model(net(channels), clips_of(8, frames=5), _video_bank(), metrics=Width(), layers=["stem"])
    assert result.value("width", "stem") == channels


def test_what_averages_over_time_does_not_notice_that_time_runs_backwards():
    bank = _video_bank(reverse=lambda clips: clips.flip(1))
    result = probe_model(FrameByFrame(), clips_of(20), bank)
    assert result.value("sensitivity", "head", "reverse") == pytest.approx(0.0, abs=1e-4)
    assert result.value("sensitivity", "input", "reverse") > 0.5


def test_equivariance_is_left_out_by_name():
    with pytest.warns(UserWarning, match="the metric 'equivariance_error' is not in the result"):
        result = probe_model(
            InTime(), clips_of(8), _video_bank(), metrics=["sensitivity", "equivariance_error"], layers=["stem"]
        )
    assert "equivariance_error" in result.metadata["left_out"]


@pytest.mark.parametrize("batch_size", [3, 32])
def test_clips_beside_other_inputs_are_found_by_their_five_axes(batch_size):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = InTime()

        def forward(self, batch):
            return self.net(batch["clip"]) + batch["map"].mean((1, 2, 3))[:, None]

    inputs = {"clip": clips_of(10), "map": torch.rand(10, 3, 4, 4)}
    result = probe_model(Named(), inputs, _video_bank(), batch_size=batch_size)
    alone = probe_model(InTime(), clips_of(10), _video_bank())
    assert result.value("sensitivity", "input") == pytest.approx(alone.value("sensitivity", "input"), rel=1e-6)


def test_one_volume_is_compared_with_reference_volumes():
    volumes = volumes_of(9)
    result = probe_model(UNet3d(), volumes[0], _volume_bank(), reference=volumes[1:], metrics="sensitivity")
    assert result.metadata["num_images"] == 1
    assert result.tensor("sensitivity").isfinite().all()


@pytest.mark.parametrize(
    ("images", "bank", "text"),
    [
        (clips_of(4), PLAIN, r"layout='volume' takes \(B, C, D, H, W\) and with layout='video' takes"),
        ({"a": clips_of(4)}, PLAIN, r"No entry .*\(B, C, H, W\).*layout='volume' takes"),
        (clips_of(4)[:, 0, 0], _video_bank(), r"expected floats of shape \(B, T, C, H, W\).*unsqueeze\(2\)"),
        ({"a": clips_of(4)[:, 0]}, _video_bank(), r"without layout='video' takes \(B, C, H, W\)"),
        (clips_of(4) * 255, _video_bank(), r"values from .* outside value_range=\(0, 1\)"),
    ],
)
def test_images_of_another_layout_are_refused_with_what_to_write(images, bank, text):
    with pytest.raises(ValueError, match=text):
        probe_model(FrameByFrame(), images, bank)


class _Clips(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = FrameByFrame()

    def forward(self, clips):
        return self.net(clips)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_training_on_clips_is_probed(tmp_path, indexed):
    dataset = TensorDataset(clips_of(12), torch.arange(12) % 4)
    loader = DataLoader(dataset, batch_size=6)
    validation = loader if indexed else DataLoader(_Stream(dataset), batch_size=6)
    probe = SensitivityProbe(_video_bank(), num_images=8)
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[probe],
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(_Clips(), loader, validation)
    assert probe.result.metadata["num_images"] == 8
    assert probe.result.metadata["bank"]["layout"] == "video"
    assert probe.result.tensor("sensitivity").isfinite().all()


class _Stream(torch.utils.data.IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter([self.dataset[index] for index in range(len(self.dataset))])


@pytest.mark.parametrize(("images", "layout"), [(volumes_of(3), "volume"), (clips_of(3), "video")])
def test_the_picture_of_a_bank_shows_the_middle_slice_or_frame(images, layout):
    pytest.importorskip("matplotlib")
    from support.pictures import pictures

    from kornia_lightning_probe.plotting import plot_bank

    bank = AugmentationBank({"half": lambda x: x / 2}, layout=layout)
    clean, *_ = pictures(plot_bank(bank, images, max_images=1))
    middle = images[0, 0, 4] if layout == "volume" else images[0, 2].permute(1, 2, 0)
    assert torch.equal(torch.as_tensor(clean.data), middle)


class Segmenter(nn.Module):
    """Class scores of each voxel, from its grey value alone: (B, 1, D, H, W) -> (B, 2, D, H, W), cut at one half."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 2, 1)
        self.head = nn.Conv3d(2, 2, 1)
        with torch.no_grad():
            self.stem.weight.fill_(1.0)
            self.stem.bias.zero_()
            self.head.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).view(2, 2, 1, 1, 1))
            self.head.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, volumes):
        return self.head(self.stem(volumes))


def _steps(sides):
    """Ten volumes, or clips without channels, that hold 1/4 and 3/4 in equal shares."""
    values = torch.tensor([0.25, 0.75]).repeat(10 * 4 * 6 * 6 // 2)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    return values[order].view(10, *sides)


def test_a_segmentation_of_volumes_is_measured_under_views_that_move_no_voxel():
    volumes = _steps((1, 4, 6, 6))
    masks = (volumes[:, 0] > 0.5).long()
    bank = _volume_bank(half=lambda x: x / 2, same=lambda x: x + 0.1)
    result = probe_model(Segmenter(), volumes, bank, labels=masks)
    # 3/4 falls to 3/8 and is the other class, 1/4 stays; 0.1 more changes neither.
    share = masks.double().mean().item()
    assert result.value("pixel_flip_rate", augmentation="half") == pytest.approx(share, abs=1e-12)
    assert result.value("pixel_flip_rate", augmentation="same") == 0.0
    assert {row.augmentation for row in result.rows if row.metric == "pixel_flip_rate"} == {"half", "same"}
    assert result.metadata["output"] == "output"
    assert result.metadata["warnings"] == []
    # An axis of one channel before the voxels says the same.
    again = probe_model(Segmenter(), volumes, bank, labels=masks[:, None], metrics="pixel_flip_rate")
    assert torch.equal(*(each.tensor("pixel_flip_rate").nan_to_num(-1.0) for each in (again, result)))


def test_where_all_views_move_voxels_it_is_left_out_by_name():
    volumes = _steps((1, 4, 6, 6))
    match = "'pixel_flip_rate' is not in the result: none of these views .* views that move no pixel"
    with pytest.warns(UserWarning, match=match):
        probe_model(Segmenter(), volumes, _volume_bank(), metrics=["sensitivity", "pixel_flip_rate"])


class Frames(nn.Module):
    """Class scores of each pixel of a clip, (B, T, 1, H, W) -> (B, T, 2, H, W), or classes first."""

    def __init__(self, *, classes_first):
        super().__init__()
        self.inner = Segmenter()
        self.classes_first = classes_first

    def forward(self, clips):
        scores = self.inner(clips.transpose(1, 2))
        return scores if self.classes_first else scores.transpose(1, 2)


def test_a_segmentation_of_video_has_its_classes_in_front_of_its_frames():
    clips = _steps((4, 1, 6, 6))
    masks = (clips[:, :, 0] > 0.5).long()
    bank = AugmentationBank({"half": lambda x: x / 2}, layout="video")
    result = probe_model(Frames(classes_first=True), clips, bank, labels=masks, layers=["inner.stem"])
    assert result.value("pixel_flip_rate") == pytest.approx(masks.double().mean().item(), abs=1e-12)
    with pytest.warns(UserWarning, match=r"its second axis is frames, \(N, 4, 2, 6, 6\), .* puts classes there"):
        other = probe_model(Frames(classes_first=False), clips, bank, labels=masks, layers=["inner.stem"])
    assert "pixel_flip_rate" not in other.metrics


def test_masks_of_another_layout_are_an_error_that_says_their_shape():
    with pytest.raises(ValueError, match=r"expected 10 integers, one per image, masks \(10, D, H, W\) of integers"):
        probe_model(Segmenter(), _steps((1, 4, 6, 6)), _volume_bank(), labels=torch.zeros(10, 2, 4, 6, 6).long())
    with pytest.raises(ValueError, match=r"masks \(10, H, W\) of integers"):
        probe_model(nn.Conv2d(3, 2, 1), torch.rand(10, 3, 6, 6), PLAIN, labels=torch.zeros(10, 4, 6, 6).long())


@pytest.mark.parametrize("channels", [1, 2])
def test_one_logit_for_each_voxel_is_a_segmentation_of_two_classes(channels):
    volumes = _steps((1, 4, 6, 6)).repeat(1, channels, 1, 1, 1)
    net = nn.Sequential(nn.Conv3d(channels, 4, 1), nn.Conv3d(4, 1, 1))
    bank = AugmentationBank({"half": lambda x: x / 2}, layout="volume")
    result = probe_model(net, volumes, bank, labels=(volumes[:, 0] > 0.5).long(), layers=["0"])
    assert result.metadata["output_kind"] == "logit"
    assert result.value("pixel_flip_rate") >= 0.0
