"""What is put around the steps of a pipeline."""

import torch
from torch import nn

from kornia_lightning_probe.bank.from_training.pins import Ends, Pin
from kornia_lightning_probe.bank.from_training.scale import Scale
from kornia_lightning_probe.bank.from_training.steps import AtEnds, ImageByImage, SameSize, ToUnit, Unscaled


class Offset:
    """Adds a magnitude from the pair that it holds, which is no longer a range."""

    def __init__(self, pair):
        self.pair = pair

    def __call__(self, image):
        low, high = self.pair
        assert low == high
        return image + high


def test_images_run_one_by_one_and_are_drawn_anew():
    offset = Offset([-1.0, 1.0])
    step = AtEnds(offset, [(Pin("pair", 0.0, ""), Ends(-0.5, 0.5))])
    torch.manual_seed(0)
    out = ImageByImage([step])(torch.zeros(64, 1, 2, 2))
    assert set(out.flatten(1)[:, 0].tolist()) == {-0.5, 0.5}
    assert offset.pair == [-1.0, 1.0]


def test_steps_in_front_of_a_conversion_get_bytes():
    seen = []

    def look(image):
        seen.append((image.dtype, image.shape, int(image.max())))
        return image

    images = torch.full((2, 3, 4, 4), 0.5)
    out = ImageByImage([look, ToUnit()], in_bytes=True)(images)
    # Half of 255 is rounded to even.
    assert seen == [(torch.uint8, (3, 4, 4), 128)] * 2
    torch.testing.assert_close(out, torch.full_like(images, 128 / 255))
    torch.testing.assert_close(ImageByImage([look], in_bytes=True)(images), out)


def test_a_step_that_makes_a_batch_of_one_image_or_gets_one_gives_the_image():
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(ImageByImage([lambda image: image.unsqueeze(0)])(images), images)
    shapes = []
    out = ImageByImage([lambda batch: shapes.append(batch.shape) or batch], as_batch=True)(images)
    assert shapes == [(1, 3, 4, 4)] * 2
    assert torch.equal(out, images)


def test_another_size_is_taken_back_and_the_same_is_left_alone():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(SameSize(nn.Identity())(images), images)
    # The mean of two rows and two columns at half of the size; a constant stays one.
    half = nn.AvgPool2d(2)
    ones = torch.full((1, 1, 8, 8), 0.25)
    torch.testing.assert_close(SameSize(half)(ones), ones)
    assert ImageByImage([half])(images).shape == images.shape


def test_a_step_behind_a_normalisation_sees_it_and_its_result_is_without():
    images = torch.rand(2, 1, 4, 4)
    scale = Scale((0.5,), (0.25,))
    seen = []
    out = Unscaled(lambda batch: seen.append(batch) or batch, before=scale, after=scale)(images)
    torch.testing.assert_close(seen[0], (images - 0.5) / 0.25)
    torch.testing.assert_close(out, images)
    torch.testing.assert_close(Unscaled(scale.done, before=None, after=scale)(images), images)
