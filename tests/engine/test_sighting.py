import torch
from support.nets import AlwaysDropout, ImageAndMask, SmallCNN
from support.probing import images_of
from support.scouting import subject_of
from torch import nn

from kornia_lightning_probe.engine.sighting import look_at
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.randomness import isolated_rng


def sighting_of(model, inputs, *, forward=None):
    with torch.no_grad(), isolated_rng():
        return look_at(subject_of(model.eval(), forward=forward), ProbeImages(inputs).scout, seed=0).sighting


def seen_of(model, inputs):
    """The inputs of the look."""
    seen = []

    def forward(x):
        seen.append(x)
        return model(x)

    sighting_of(model, inputs, forward=forward)
    return seen


def test_two_images_of_the_first_block_are_enough():
    images = images_of(20)
    (seen,) = seen_of(SmallCNN(), images)
    assert torch.equal(seen, ProbeImages(images).scout.images[0][:2])


def test_one_image_stands_beside_its_mirror_image():
    image = images_of(1)
    (seen,) = seen_of(SmallCNN(), image)
    assert torch.equal(seen, torch.cat([image, image.flip(-1)]))


def test_all_entries_of_a_dictionary_come_with_the_images():
    inputs = {"image": images_of(1), "mask": torch.ones(1, 1, 12, 12, dtype=torch.bool)}
    (seen,) = seen_of(ImageAndMask(), inputs)
    assert torch.equal(seen["image"], torch.cat([inputs["image"], inputs["image"].flip(-1)]))
    assert seen["mask"].shape == (2, 1, 12, 12)


def test_every_module_that_runs_is_seen_in_order_and_whether_images_differ_there():
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.wiped, self.idle = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Flatten()

        def forward(self, x):
            return self.wiped(torch.zeros_like(self.conv(x)))

    sighting = sighting_of(Ends(), images_of(4))
    assert list(sighting.trace.activations)[:2] == ["conv", "wiped"]
    assert "idle" not in sighting.trace.activations
    assert (sighting.differs["conv"], sighting.differs["wiped"]) == (True, False)
    assert list(sighting.usable) == ["conv"]
    assert sighting.why_not("wiped") == "it does not depend on the image"


def test_a_model_that_writes_into_its_input_does_not_write_into_the_images():
    class Writes(SmallCNN):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    images = images_of(4)
    before = images.clone()
    sighting_of(Writes(), images)
    assert torch.equal(images, before)


def test_the_look_finds_a_random_stream_of_its_own():
    net = AlwaysDropout()
    outputs = []

    def forward(x):
        outputs.append(net(x))
        return outputs[-1]

    for _ in range(2):
        torch.rand(3)
        sighting_of(net, images_of(4), forward=forward)
    assert torch.equal(*outputs)
