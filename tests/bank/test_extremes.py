import math

import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of

from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.bank import operators
from kornia_lightning_probe.bank.views import Extremes
from kornia_lightning_probe.randomness import isolated_rng


def small_cnn():
    with isolated_rng(3):
        return SmallCNN()


def point(row, column, *, size=21):
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1.0
    return image


def peak(image):
    """Row and column of the brightest pixel."""
    place = int(image[0, 0].flatten().argmax())
    return divmod(place, image.shape[-1])


def test_a_pose_moves_by_fractions_of_the_sides_and_turns_to_the_left():
    assert peak(operators.PinnedPose(0.0, right=2 / 21, down=-3 / 21)(point(10, 10))) == (7, 12)
    # A quarter turn to the left takes the right of the centre to above it, as a rotation's does.
    assert peak(operators.PinnedPose(90.0)(point(10, 15))) == (5, 10)
    assert peak(operators.K.RandomRotation((90.0, 90.0), p=1.0)(point(10, 15))) == (5, 10)


def test_every_image_of_a_batch_gets_the_same_pose_and_has_its_matrix():
    bank = AugmentationBank({"corners": presets.corners()})
    images = images_of(1).expand(4, -1, -1, -1)
    drawn = bank.augment(bank[0], images, block=0)
    for augmented in drawn.images[0]:
        torch.testing.assert_close(augmented, drawn.images[0][0])
    assert drawn.matrix is not None
    torch.testing.assert_close(drawn.matrix, drawn.matrix[:1].expand(4, -1, -1))


def test_both_ends_are_the_angles_and_their_opposites():
    ladder = presets.rotation((5, 30), ends="both")
    assert isinstance(ladder, Extremes)
    assert list(ladder) == [-30.0, -5.0, 5.0, 30.0]
    left, right = ladder[30.0](point(10, 15)), ladder[-30.0](point(10, 15))
    assert peak(left)[0] < 10 < peak(right)[0]
    with pytest.raises(ValueError, match="ends is 'drawn' or 'both', got 'left'"):
        presets.rotation(ends="left")


def test_corners_are_the_26_poses_about_the_identity():
    poses = {
        (round(float(pose.flags["right"]), 9), round(float(pose.flags["down"]), 9), number)
        for number, pose in presets.corners(20, 0.2).items()
    }
    assert len(poses) == 26
    assert {right for right, _, _ in poses} == {-0.2, 0.0, 0.2}
    matrices = [
        AugmentationBank({"corners": presets.corners()}).augment(view, images_of(2), block=0).matrix[0]
        for view in AugmentationBank({"corners": presets.corners()})
    ]
    identity = torch.eye(3)
    assert len({tuple(matrix.flatten().tolist()) for matrix in matrices}) == 26
    assert all(not torch.allclose(matrix, identity, atol=1e-3) for matrix in matrices)
    with pytest.raises(ValueError, match="severity 0 isn't a positive number"):
        presets.corners(0)


def test_what_is_no_curve_has_no_area_and_no_onset_and_has_a_worst():
    bank = AugmentationBank({"ends": presets.rotation((10, 30), ends="both"), "corners": presets.corners()})
    assert [view.on_curve for view in bank] == [False] * 30
    result = probe_model(small_cnn(), images_of(40), bank, metrics=["sensitivity"])
    for row in result.severity():
        assert math.isnan(row.area)
        assert math.isnan(row.area_error)
        assert math.isnan(row.onset)
        assert row.censored == ""
        # No view moves every image as far as its own worst one.
        assert row.worst > row.worst_value
    text = result.summary()
    assert "ends, each image at its own worst of 4 views: input" in text
    assert "corners, each image at its own worst of 26 views: input" in text
    assert "area, onset" not in text


def test_what_is_no_curve_is_so_in_files_and_pictures(tmp_path):
    bank = AugmentationBank({"corners": presets.corners(), "dark": presets.darken()})
    result = probe_model(small_cnn(), images_of(8), bank, metrics=["sensitivity"])
    result.to_json(tmp_path / "probe.json")
    read = type(result).from_json(tmp_path / "probe.json")
    assert (read.is_curve("corners"), read.is_curve("dark")) == (False, True)
    corners, dark = read.plot("severity").axes[:2]
    assert {line.get_linestyle() for line in corners.get_lines()[: len(read.layers)]} == {"None"}
    assert {line.get_linestyle() for line in dark.get_lines()[: len(read.layers)]} == {"-"}
    assert corners.get_xlabel() == "view"
