"""A bank from a pipeline: names, levels, units and sides, what is left out, and that nothing of the user's changes."""

import copy
import json
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import PosixPath as Path
from types import SimpleNamespace

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.bank.from_training.pins import Pin, range_of
from kornia_lightning_probe.bank.from_training.views import views_from_training

BEHIND = "it runs behind the loader, and a bank's mean and std are of what the loader does"


def bank_of(*steps, levels=3, **settings):
    return AugmentationBank.from_training(nn.Sequential(*steps), levels, **settings)


def drawn_by(view, size=(64, 3, 16, 16)):
    torch.manual_seed(0)
    view.transform(torch.rand(size))
    return view.transform._params


@pytest.mark.parametrize("container", [nn.Sequential, K.ImageSequential, K.AugmentationSequential])
def test_each_child_has_a_ladder_and_the_whole_pipeline_is_last(container):
    pipeline = container(
        K.RandomRotation(30.0, p=0.1), K.RandomHorizontalFlip(), K.RandomGaussianBlur((3, 3), (0.1, 2.0))
    )
    bank = AugmentationBank.from_training(pipeline, levels=2)
    assert [(view.augmentation, view.severity, view.unit) for view in bank] == [
        ("rotation", 15.0, "degrees"),
        ("rotation", 30.0, "degrees"),
        ("horizontal_flip", 1.0, ""),
        ("gaussian_blur", 1.0, "pixels"),
        ("gaussian_blur", 2.0, "pixels"),
        ("pipeline", 1.0, ""),
    ]
    assert [view.from_identity for view in bank] == [True, True, False, True, True, False]
    assert [view.moves_pixels for view in bank] == [True, True, True, False, False, True]


def test_containers_in_containers_are_entered():
    bank = bank_of(K.ImageSequential(K.RandomRotation(3.0), nn.Sequential(K.RandomVerticalFlip())), K.RandomInvert())
    assert bank.describe()["views"][-2]["augmentation"] == "invert"
    assert list(dict.fromkeys(view.augmentation for view in bank)) == [
        "rotation",
        "vertical_flip",
        "invert",
        "pipeline",
    ]


def test_a_policy_is_one_augmentation():
    bank = bank_of(K.auto.RandAugment(2, 5), K.PatchSequential(K.RandomInvert(p=1.0), patchwise_apply=False))
    assert [view.label for view in bank] == ["rand_augment", "patch_sequential", "pipeline"]


def test_names_of_the_user_are_kept_and_others_are_numbered_where_they_repeat():
    turn = K.RandomRotation(3.0)
    named = nn.Sequential(
        OrderedDict(tilt=turn, RandomRotation=turn, pipeline=K.RandomInvert(), first=nn.Sequential(turn, turn))
    )
    bank = AugmentationBank.from_training(named, levels=1)
    names = [view.augmentation for view in bank]
    # The same object twice is two children; none may be called as the whole is.
    assert names == ["tilt", "RandomRotation", "pipeline_1", "rotation_1", "rotation_2", "pipeline"]


def test_a_name_with_a_slash_that_no_result_could_have_gets_another():
    assert bank_of(nn.Sequential(OrderedDict([("colour/hue", K.RandomInvert())])))[0].augmentation == "colour_hue"


def test_a_range_to_both_sides_draws_a_side_for_each_image_the_same_at_every_level():
    sides = []
    for view, far in zip(bank_of(K.RandomRotation(30.0)), (10.0, 20.0, 30.0), strict=False):
        degrees = drawn_by(view)["degrees"]
        assert set(degrees.tolist()) == {-far, far}
        sides.append(degrees.sign())
    # 64 images go to one side alone once in 2^63 draws.
    assert sides[0].tolist() == sides[1].tolist() == sides[2].tolist()


@pytest.mark.parametrize(
    ("degrees", "ends"),
    [
        ((10.0, 30.0), {15.0}),  # half of the way from 0 to the further end
        ((-30.0, -10.0), {-15.0}),
        ((0.0, 30.0), {15.0}),
        ((-10.0, 30.0), {-5.0, 15.0}),  # each side at half of its own end
        ((20.0, 20.0), {10.0}),
    ],
)
def test_half_of_a_range_is_between_the_identity_and_its_far_end(degrees, ends):
    half = bank_of(K.RandomRotation(degrees), levels=2)[0]
    assert set(drawn_by(half)["degrees"].tolist()) == ends
    assert half.severity == max(map(abs, ends))


def test_several_magnitudes_of_one_reach_keep_their_unit_and_others_are_parts_of_the_range():
    alike = bank_of(K.RandomAffine(0.0, translate=(0.1, 0.1)), levels=2)
    different = bank_of(K.RandomAffine(10.0, translate=(0.1, 0.1)), levels=2)
    assert [(view.severity, view.unit) for view in alike][:2] == [(0.05, "of the side"), (0.1, "of the side")]
    assert [(view.severity, view.unit) for view in different][:2] == [(0.5, "of the range"), (1.0, "of the range")]
    drawn = drawn_by(different[0])
    assert set(drawn["angle"].abs().tolist()) == {5.0}
    torch.testing.assert_close(drawn["translations"].abs(), torch.full((64, 2), 0.05 * 16))


def test_whole_numbers_that_repeat_or_do_nothing_are_no_levels():
    # Thirds of the way from 8 bits to 7 are 7.67, 7.33 and 7: once 8, which is the identity, and twice 7.
    assert [view.severity for view in bank_of(K.RandomPosterize((7, 8)))][:-1] == [1.0]


def test_a_class_without_a_range_that_is_known_is_drawn_as_in_training_but_always():
    (view, _) = bank_of(K.RandomMotionBlur((3, 7), 35.0, 0.5, p=0.1))
    assert (view.num_levels, view.unit, view.transform.p) == (1, "", 1.0)
    assert set(drawn_by(view)["ksize_factor"].tolist()) <= {3, 5, 7}


def test_a_range_that_never_leaves_the_identity_is_one_view():
    assert [view.label for view in bank_of(K.RandomRotation(0.0))] == ["rotation", "pipeline"]


def test_what_never_runs_or_runs_alike_for_a_whole_batch_runs_on_every_image_by_itself():
    bank = bank_of(K.RandomRotation(30.0, p=0.0, same_on_batch=True))
    drawn = drawn_by(bank[0])
    assert drawn["batch_prob"].tolist() == [1.0] * 64
    assert set(drawn["degrees"].tolist()) == {-10.0, 10.0}
    assert (bank[3].transform[0].p, bank[3].transform[0].same_on_batch) == (0.0, True)


def test_the_whole_pipeline_is_drawn_as_in_training():
    pipeline = K.AugmentationSequential(K.RandomRotation(30.0, p=0.5), K.RandomHorizontalFlip(p=0.5), random_apply=1)
    images = torch.rand(8, 3, 16, 16)
    whole = list(AugmentationBank.from_training(pipeline))[-1].transform
    torch.manual_seed(3)
    expected = pipeline(images, data_keys=["input"])
    torch.manual_seed(3)
    assert torch.equal(whole(images, data_keys=["input"]), expected)


def test_a_normalisation_behind_the_loader_is_left_out_and_named():
    steps = [K.RandomInvert(p=1.0), K.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), K.RandomHorizontalFlip(p=1.0)]
    with pytest.warns(UserWarning, match=re.escape(f"Left out of the pipeline: Normalize ({BEHIND})")):
        bank = bank_of(*steps)
    images = torch.rand(2, 3, 8, 8)
    whole = bank.augment(bank[2], images, block=0).images[0]
    # Inverted and mirrored, in [0, 1] as before.
    torch.testing.assert_close(whole, 1 - images.flip(-1))
    assert bank.left_out == {"Normalize": BEHIND}
    assert bank.describe()["mean"] == [0.0]


def test_what_stands_behind_a_normalisation_gets_normalised_images():
    class Double(nn.Module):
        def forward(self, images):
            return images * 2

    with pytest.warns(UserWarning, match="Left out of the pipeline: Normalize"):
        bank = bank_of(K.Normalize(0.5, 0.25), K.Normalize(1.0, 2.0), Double())
    images = torch.rand(2, 1, 8, 8)
    # Both are ((x - 0.5) / 0.25 - 1) / 2 = (x - 0.75) / 0.5; twice that, taken back: 2 (x - 0.75) + 0.75.
    for view in bank:
        torch.testing.assert_close(bank.augment(view, images, block=0).images[0], 2 * images - 0.75)


def test_a_pipeline_that_undoes_the_loaders_normalisation_is_seen_without_it():
    steps = (K.Denormalize(0.5, 0.5), K.RandomInvert(p=1.0), K.Normalize(0.5, 0.5))
    with pytest.warns(UserWarning, match=r"Denormalize \(the bank undoes the loader's normalisation itself\)"):
        bank = bank_of(*steps, mean=0.5, std=0.5)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    for view in bank:
        torch.testing.assert_close(bank.augment(view, images, block=0).images[0], -images)


def test_what_mixes_images_is_left_out_by_name():
    why = "it mixes several images and their labels"
    with pytest.warns(UserWarning, match=re.escape(f"Left out of the pipeline: RandomMixUpV2 ({why})")):
        bank = bank_of(K.RandomMixUpV2(p=1.0), K.RandomJigsaw((2, 2)), K.RandomInvert(p=0.0))
    # A jigsaw is of one image.
    assert [view.augmentation for view in bank] == ["jigsaw", "invert", "pipeline"]
    assert isinstance(list(bank)[-1].transform[0], nn.Identity)


@pytest.mark.parametrize("crop", [K.RandomCrop((12, 12)), K.RandomResizedCrop((12, 20), (0.5, 1.0))])
def test_crops_get_a_resize_behind_them(crop):
    bank = bank_of(crop, K.RandomInvert())
    images = torch.rand(4, 3, 16, 16)
    for view in bank:
        assert bank.augment(view, images, block=0).images[0].shape == images.shape


def test_a_crop_sees_the_size_that_it_has_in_training():
    bank = bank_of(K.Resize((20, 20)), K.RandomCrop((16, 16)), levels=1)
    assert [view.augmentation for view in bank] == ["crop", "pipeline"]
    # Cropped from 16 pixels, 16 would be all of the image.
    assert bank.augment(bank[0], torch.rand(4, 3, 16, 16), block=0).changed


def test_nothing_of_the_user_changes():
    crop, jiggle = K.RandomResizedCrop((8, 8)), K.ColorJiggle(0.2, 0.2, 0.2, 0.1)
    pipeline = K.AugmentationSequential(crop, jiggle, K.RandomGaussianNoise(0.0, 0.2), same_on_batch=True)
    pipeline(torch.rand(2, 3, 8, 8), data_keys=["input"])
    before, held = repr(pipeline), copy.deepcopy(pipeline.state_dict())
    inside = [dict(module.__dict__) for module in pipeline.modules()]
    stream = torch.get_rng_state()
    bank = AugmentationBank.from_training(pipeline)
    for view in bank:
        bank.augment(view, torch.rand(2, 3, 8, 8, generator=torch.Generator()), block=0)
    assert torch.equal(torch.get_rng_state(), stream)
    assert repr(pipeline) == before
    assert pipeline.state_dict().keys() == held.keys()
    assert all(torch.equal(value, held[name]) for name, value in pipeline.state_dict().items())
    for module, attributes in zip(pipeline.modules(), inside, strict=True):
        assert module.__dict__.keys() == attributes.keys()
        assert all(module.__dict__[name] is value for name, value in attributes.items())


def test_a_bank_from_a_pipeline_probes_a_model():
    bank = bank_of(K.RandomRotation(30.0, p=1.0), K.RandomGaussianNoise(0.0, 0.2, p=1.0))
    images = torch.rand(48, 3, 16, 16)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    one, other = (probe_model(net, images, bank, batch_size=size) for size in (1, 48))
    assert one.views == other.views
    torch.testing.assert_close(one.tensor("sensitivity"), other.tensor("sensitivity"), rtol=1e-4, atol=1e-6)
    assert "rotation 10, 20, 30 (degrees)" in one.summary()
    assert "sensitivity" in one.metrics


def test_views_are_the_same_again_and_after_pickling_and_the_description_tells_the_levels_apart():
    bank = bank_of(K.RandomRotation(30.0), K.RandomResizedCrop((8, 8)), K.RandomErasing())
    again = pickle.loads(pickle.dumps(bank))  # noqa: S301 - our own
    images = torch.rand(4, 3, 16, 16)
    for view, same in zip(bank, again, strict=True):
        first = bank.augment(view, images, block=1).images[0]
        assert torch.equal(again.augment(same, images, block=1).images[0], first)
        assert torch.equal(bank.augment(view, images, block=1).images[0], first)
    described = bank.describe()
    assert json.loads(json.dumps(described)) == described == again.describe()
    assert len({view["transform"] for view in described["views"]}) == len(bank)


def test_ladders_keep_the_matrices_of_kornia():
    bank = bank_of(K.RandomRotation((90.0, 90.0)), levels=1)
    matrix = bank.augment(bank[0], torch.rand(1, 1, 5, 5), block=0).matrix
    # A quarter turn to the left about (2, 2): right of the centre becomes above it.
    torch.testing.assert_close(matrix @ torch.tensor([[4.0], [2.0], [1.0]]), torch.tensor([[[2.0], [0.0], [1.0]]]))


@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        (K.RandomRotation(3.0), TypeError, "got RandomRotation; write nn.Sequential(...) around its steps"),
        ([K.RandomRotation(3.0)], TypeError, "got list; write nn.Sequential(...) around its steps"),
        ("default", TypeError, "got str; write"),
        (K.auto.RandAugment(2, 5), TypeError, "got RandAugment; write"),
        (K.AugmentationSequential, TypeError, "got the class AugmentationSequential; make an instance of it"),
        (Path(), TypeError, "got PosixPath of pathlib; write"),
        (nn.Sequential(), ValueError, "The pipeline is empty: Sequential holds no augmentation"),
        (
            nn.Sequential(nn.Identity(), K.Resize((4, 4))),
            ValueError,
            "The pipeline holds no augmentation that can be probed, only Identity, Resize",
        ),
    ],
)
def test_what_is_no_pipeline_is_refused(pipeline, error, message):
    with pytest.raises(error, match=re.escape(message)):
        AugmentationBank.from_training(pipeline)


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        (0, ValueError, "levels must be at least 1, got 0"),
        (-1, ValueError, "levels must be at least 1, got -1"),
        (1.5, TypeError, "levels must be an integer, got 1.5"),
        (True, TypeError, "levels must be an integer, got True"),
        ("3", TypeError, "levels must be an integer, got '3'"),
    ],
)
def test_levels_are_a_positive_number(levels, error, message):
    with pytest.raises(error, match=re.escape(message)):
        bank_of(K.RandomInvert(), levels=levels)


def test_what_cannot_be_copied_is_named():
    class Uncopied(nn.Module):
        def __deepcopy__(self, memo):
            raise ValueError("no copy")

    with pytest.raises(
        TypeError, match=re.escape("Uncopied of the pipeline can't be copied (no copy); give a freshly")
    ):
        bank_of(Uncopied())


def test_a_magnitude_that_learns_is_read_as_a_number():
    degrees = torch.tensor([-30.0, 30.0], requires_grad=True)
    pinned = Pin("degrees", 0.0, "degrees")
    assert range_of(SimpleNamespace(degrees=degrees), pinned) == (-30.0, 30.0)


def test_volumes_are_drawn_as_in_training_but_always():
    pipeline = nn.Sequential(K.RandomRotation3D((10.0, 0.0, 0.0), p=0.1), K.RandomHorizontalFlip3D(p=0.1))
    bank = AugmentationBank.from_training(pipeline, layout="volume")
    assert [view.label for view in bank] == ["rotation3d", "horizontal_flip3d", "pipeline"]
    volumes = torch.rand(2, 1, 4, 4, 4)
    assert torch.equal(bank.augment(bank[1], volumes, block=0).images[0], volumes.flip(-1))


def test_a_compiled_pipeline_is_looked_into():
    pipeline = torch.compile(nn.Sequential(K.RandomInvert()), backend="eager")
    assert list(views_from_training(pipeline).views) == ["invert", "pipeline"]


def test_frames_of_a_video_get_the_same():
    bank = AugmentationBank.from_training(K.VideoSequential(K.RandomRotation(30.0, p=1.0)), layout="video", levels=1)
    clips = torch.rand(2, 1, 3, 8, 8).expand(2, 4, 3, 8, 8)
    turned = bank.augment(bank[0], clips, block=0).images[0]
    assert all(torch.equal(turned[:, 0], turned[:, frame]) for frame in range(4))


def test_the_whole_pipeline_may_change_part_of_the_images_and_a_view_of_ones_own_may_not():
    pipeline = K.AugmentationSequential(K.RandomHorizontalFlip(p=0.5), data_keys=["input"])
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = probe_model(net, images, AugmentationBank.from_training(pipeline))
    assert not [warning for warning in caught if "part of the images" in str(warning.message)]
    assert list(result.metadata["partly_changed_views"]) == ["pipeline"]
    with pytest.warns(UserWarning, match="change only part of the images"):
        probe_model(net, images, AugmentationBank({"own": K.RandomHorizontalFlip(p=0.5)}))
