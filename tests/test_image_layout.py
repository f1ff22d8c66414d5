import pytest
import torch

from kornia_lightning_probe.image_layout import IMAGE, VIDEO, VOLUME, image_layout


@pytest.mark.parametrize(
    ("layout", "shape", "channels", "depth"),
    [(IMAGE, (2, 3, 8, 9), 3, None), (VOLUME, (2, 3, 5, 8, 9), 3, 5), (VIDEO, (2, 5, 3, 8, 9), 3, 5)],
)
def test_channels_slices_and_frames_are_where_the_layout_says(layout, shape, channels, depth):
    images = torch.zeros(shape)
    assert (layout.channels(images), layout.depth(images)) == (channels, depth)
    assert layout.flat(images).shape == (2, 3, 8, 9)
    assert image_layout(layout.name) is layout


def test_the_middle_slice_or_frame_is_the_picture():
    # Five of them, numbered: the middle is 2.
    numbers = torch.arange(5.0)
    assert VOLUME.flat(numbers.view(1, 1, 5, 1, 1)).item() == 2
    assert VIDEO.flat(numbers.view(1, 5, 1, 1, 1)).item() == 2


@pytest.mark.parametrize("name", ["Video", None, ["video"]])
def test_another_layout_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=r"'image' \(B, C, H, W\), 'volume' .*'video' \(B, T, C, H, W\); got"):
        image_layout(name)
