import pytest
import torch
from support.nets import (
    HuggingViT,
    Returns,
    SequenceFirst,
    SharedTwice,
    SmallCNN,
)
from support.probing import halved, images_of, plain_bank, run
from support.scouting import scouting, subject_of
from support.volumes import volumes_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.engine.sighting import look_at
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.images.probe_images import ProbeImages

IMAGES = images_of(40)


def test_layers_come_in_order_of_execution_and_the_input_before_them():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(4, 2), nn.Linear(432, 4)

        def forward(self, x):
            return self.second(self.first(x.flatten(1)))

    result = run(Backwards(), IMAGES, plain_bank(), layers=["second", "first"])
    assert result.layers == ("first", "second")
    assert result.table("sensitivity").layers == ("input", "first", "second")


def test_a_module_that_is_called_twice_is_two_layers():
    net = SharedTwice()
    result = run(net, IMAGES, plain_bank(), layers=["shared", "fc"])
    assert result.layers == ("shared", "shared.call2", "fc")

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Identity(), nn.Identity(), nn.Identity()

        def forward(self, x):
            hidden = self.a(net.shared(x))
            return self.fc(net.fc(self.b(net.shared(torch.tanh(hidden))).mean((2, 3))))

    unrolled = run(Unrolled(), IMAGES, plain_bank(), layers=["a", "b", "fc"])
    assert torch.equal(unrolled.tensor("sensitivity"), result.tensor("sensitivity"))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: (x, 2 * x), ("0[0]", "0[1]")),
        (lambda x: {"maps": x, "ids": torch.arange(len(x)), "more": [x + 1]}, ("0[maps]", "0[more][0]")),
    ],
)
def test_each_tensor_of_an_output_is_a_layer(make, names):
    result = run(nn.Sequential(Returns(make)), IMAGES, plain_bank(), layers="0")
    assert result.layers == names
    # Scale and shift change no sensitivity, so all are that of the pixels.
    table = result.tensor("sensitivity")
    torch.testing.assert_close(table, table[:, :1].expand_as(table), rtol=1e-5, atol=0)


def test_an_integer_entry_is_left_out_with_its_reason():
    net = nn.Sequential(Returns(lambda x: {"maps": x, "ids": torch.arange(len(x))}))
    result = run(net, IMAGES, plain_bank(), layers="0")
    assert result.metadata["left_out"] == {"0[ids]": "integer tensor (int64)"}


def test_an_exact_layer_that_never_runs_is_an_error():
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    with pytest.raises(ValueError, match=r"no activation came from '1' \(it did not run in the model's forward\)"):
        run(net, IMAGES, plain_bank(), layers=["0", "1"], forward=net[0])


def test_a_pattern_may_match_layers_that_never_run_and_one_sentence_names_them():
    net = HuggingViT(depth=1)
    result = run(net, images_of(8, size=16), plain_bank(), layers="encoder.layer.0.attn*")
    assert result.layers == ("encoder.layer.0.attn[0]",)
    assert result.metadata["left_out"] == {"encoder.layer.0.attn.out_proj": "it did not run in the model's forward"}
    assert len(result.metadata["warnings"]) == 1


def test_a_layer_with_its_sequence_in_front_is_read_with_its_images_in_front():
    class ImagesFirst(SequenceFirst):
        def forward(self, x):
            return self.head(self.tokens(self.conv(x).flatten(2).permute(0, 2, 1)).mean(1))

    net, other = SequenceFirst(), ImagesFirst()
    other.load_state_dict(net.state_dict())
    result, expected = (run(model, IMAGES, plain_bank(), layers=nn.Linear) for model in (net, other))
    assert result.layers == ("tokens", "head")
    assert result.metadata["shapes"]["tokens"] == [100, 4]
    torch.testing.assert_close(result.tensor("sensitivity"), expected.tensor("sensitivity"), rtol=1e-5, atol=0)


def test_a_layer_in_which_nobody_knows_the_images_is_left_out_with_the_reason():
    class Untold(SequenceFirst):
        def forward(self, x):
            tokens = self.conv(x).flatten(2).permute(2, 0, 1)
            return self.head(self.tokens(torch.from_numpy(tokens.numpy().copy())).mean(0))

    # 10 x 10 cells are 100 tokens in front of 20 images.
    reason = "its first axis has 100 entries where 20 images went in"
    result = run(Untold(), IMAGES, plain_bank(), layers=nn.Linear)
    assert result.layers == ("head",)
    assert result.metadata["left_out"] == {"tokens": reason}
    with pytest.raises(ValueError, match=rf"no activation came from 'tokens' \({reason}\)"):
        run(Untold(), IMAGES, plain_bank(), layers=["tokens", "head"])


@pytest.mark.parametrize(
    ("layers", "embedding"),
    [(["block1", "block2", "head"], "block2"), (["block1", "block2"], "block2"), (["head"], "head")],
)
def test_the_embedding_is_the_last_layer_that_is_not_the_output_itself(layers, embedding):
    assert run(SmallCNN(), IMAGES, plain_bank(), layers=layers).metadata["embedding"] == embedding


def test_the_output_may_be_an_entry_of_a_dictionary():
    class Wrapped(SmallCNN):
        def forward(self, x):
            return {"logits": super().forward(x)}

    # Its pooled features, as dropout hands them on to the head.
    assert run(Wrapped(), IMAGES, plain_bank()).metadata["embedding"] == "block2"


def test_an_embedding_that_gave_no_activation_is_an_error_that_shows_what_did():
    with pytest.raises(ValueError, match=r"embedding='head.call2' is none of the layers .*'block1', 'block2', 'head'"):
        run(SmallCNN(), IMAGES, plain_bank(), embedding="head.call2")


def sites_of(net, images=None, **options):
    images = IMAGES if images is None else images
    subject = subject_of(net, **options)
    look = look_at(subject, ProbeImages(images).scout, seed=0)
    chosen = look.sighting.choose(subject)
    with scouting(net, images, rows=chosen.rows, cells=chosen.cells, wants_scores=True, **options) as (scouted, _):
        return {site.name: site for site in scouted.sites}


def test_sites_know_where_their_cells_lie():
    class Mapped(nn.Sequential):
        """Scores of each pair of pixels."""

    net = Mapped(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 1))
    sites = sites_of(net, layers=["0"])
    # 12 x 12 pixels, of which each second one is the middle of a cell.
    coarse = Grid((6, 6), (2.0, 2.0), (0.0, 0.0), (0.0, 0.0))
    assert sites["input"].grid == Grid((12, 12), (1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    assert sites["0"].grid == coarse
    assert sites["output"].grid == coarse


def test_a_vector_has_no_cells():
    class Pooled(nn.Sequential):
        """Ends in a vector, behind a map of one cell."""

    sites = sites_of(Pooled(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)))
    assert [site.cells for name, site in sites.items() if name != "input"] == [None] * (len(sites) - 1)


def test_cells_that_were_of_another_size_in_a_batch_of_two_are_unknown():
    class Fickle(nn.Sequential):
        """Halves the images of larger batches."""

        def forward(self, x):
            return super().forward(x if len(x) == 2 else x[..., ::2, ::2])

    sites = sites_of(Fickle(nn.Conv2d(3, 4, 3, padding=1)), layers=["0"])
    assert sites["0"].cells == "it gave (4, 6, 6) for each image, and another shape in a batch of two"


@pytest.mark.parametrize(("layout", "frames"), [("volume", 2), ("video", 1)])
def test_volumes_and_video_have_three_axes_and_no_map(layout, frames):
    class Framewise(nn.Sequential):
        """Takes (B, C, D, H, W), as volumes are; frames of video are turned."""

        def forward(self, x):
            return super().forward(x if layout == "volume" else x.transpose(1, 2))

    images = volumes_of(4) if layout == "volume" else volumes_of(4).transpose(1, 2)
    net = Framewise(nn.Conv3d(images.shape[3 - frames], 2, 3, (1, 2, 2), 1))
    result = probe_model(net, images, AugmentationBank({"halve": halved}, layout=layout), layers="0")
    grids = result.metadata["grids"]
    assert grids["input"]["size"] == [images.shape[frames], *images.shape[3:]]
    assert grids["0"]["stride"] == [1.0, 2.0, 2.0]
    assert "equivariance_error" not in result.metrics
