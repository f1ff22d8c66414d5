import pytest
from support.nets import (
    Composed,
    InPlace,
    SequenceFirst,
)
from support.probing import images_of, plain_bank, run, same
from torch import nn

IMAGES = images_of(40)

pytestmark = pytest.mark.usefixtures("seeded")


def test_an_in_place_relu_behind_a_layer_changes_none_of_its_numbers():
    net = InPlace()
    expected = run(net, IMAGES, plain_bank(), layers=["conv", "fc"])
    net.relu = nn.ReLU(inplace=False)
    same(run(net, IMAGES, plain_bank(), layers=["conv", "fc"]), expected)


def test_a_model_that_writes_into_its_input_does_not_write_into_the_probe_images():
    # Many models normalise in their forward; the same arithmetic in place must give the same numbers.
    def normalised(x, features):
        return features

    class Normalises(nn.Module):
        def __init__(self, *, in_place):
            super().__init__()
            self.net, self.in_place = Composed(normalised), in_place

        def forward(self, x):
            return self.net(x.sub_(0.4).div_(0.3) if self.in_place else (x - 0.4) / 0.3)

    net = Normalises(in_place=False)
    expected = run(net, IMAGES, plain_bank(), layers=["net.conv", "net.head"])
    net.in_place = True
    for batch_size in (32, 7):
        result = run(net, IMAGES, plain_bank(), layers=["net.conv", "net.head"], batch_size=batch_size)
        assert result.metadata["noise_floor"] == 0
        same(result, expected, rtol=1e-5, atol=0)


def test_a_sequence_as_long_as_the_first_block_is_left_out_as_soon_as_it_gives_itself_away():
    # 4 x 4 cells are 16 tokens in front of 16 images; merged with a second view there are 32 images.
    with_merging = run(SequenceFirst(), images_of(16, size=6), plain_bank(), layers=nn.Linear, batch_size=64)
    assert with_merging.layers == ("head",)
    # 17 images and then 16: the tokens fit the second block only.
    with_blocks = run(SequenceFirst(), images_of(33, size=6), plain_bank(), layers=nn.Linear)
    assert with_blocks.layers == ("head",)


def test_a_layer_that_runs_on_later_images_only_is_left_out_with_the_reason():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.rare, self.calls = nn.Flatten(), nn.Flatten(), 0

        def forward(self, x):
            self.calls += 1
            return self.rare(x) if self.calls > 6 else self.always(x)

    net = nn.Sequential(Sometimes(), nn.Linear(432, 2))
    result = run(net, IMAGES, plain_bank(), layers=["re:.*(always|rare)", "1"])
    assert result.metadata["left_out"]["0.rare"] in (
        "it did not run in the model's forward",
        "it ran on some images only, and not on the first block",
    )
    # The second block of 20 images never reached `always`.
    assert set(result.table("sensitivity").num_images[:, 1].tolist()) == {20}


@pytest.mark.parametrize("metrics", [["sensitivity"], ["spread"]])
def test_a_layer_whose_size_depends_on_the_view_is_an_error(metrics):
    class Cropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.crop = nn.Identity()

        def forward(self, x):
            return self.crop(x if x.mean() > 0.4 else x[..., ::2, ::2]).mean((1, 2, 3))

    with pytest.raises(ValueError, match=r"'crop' gave \(3, 6, 6\) for each image and \(3, 12, 12\) for others before"):
        run(Cropping(), IMAGES, plain_bank(), layers=["crop"], metrics=metrics)
