import pytest
import torch
from support.nets import ResNet
from support.plain_measures import PLAIN
from support.probing import images_of, mixed_bank
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model


class Layer(nn.Module):
    """Images as a layer puts them out that adds a mean: (C, H, W), (H, W, C), tokens, or tokens after a class token."""

    def __init__(self, layout, mean, dtype):
        super().__init__()
        self.layout, self.mean, self.dtype = layout, mean, dtype

    def forward(self, x):
        x = (x + self.mean).to(self.dtype)
        if self.layout == "map":
            return x
        if self.layout == "channels last":
            return x.permute(0, 2, 3, 1)
        tokens = x.flatten(2).transpose(1, 2)
        return tokens if self.layout == "tokens" else torch.cat([tokens[:, :1], tokens], 1)


# At 1000, bfloat16 has steps of 4, and all images are the same.
@pytest.mark.parametrize(
    ("mean", "dtype"),
    [*((mean, torch.float32) for mean in (0, 10, 100, 1000)), *((mean, torch.bfloat16) for mean in (0, 10, 100))],
)
@pytest.mark.parametrize("layout", ["map", "channels last", "tokens", "class and tokens"])
def test_pooled_features_keep_what_images_differ_by_however_large_the_mean(layout, dtype, mean):
    images = torch.rand(31, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    bank = AugmentationBank({"darker": lambda x: 0.7 * x})
    result = probe_model(nn.Sequential(Layer(layout, mean, dtype)), images, bank, layers=["0"])
    layer, pooled = Layer("map", mean, dtype), "0:patch" if layout == "class and tokens" else "0"
    clean, augmented = (layer(x).double().mean((2, 3)) for x in (images, 0.7 * images))
    # Up to 1e-5 of the distance between images is lost to rounding by choice; the view moves them by several times it.
    assert result.value("sensitivity_pooled", pooled) == pytest.approx(
        PLAIN["sensitivity"](clean, augmented).item(), rel=1e-5
    )
    assert result.value("spread", pooled) == pytest.approx(PLAIN["spread"](clean, augmented).item(), rel=1e-5)


def test_pooled_features_keep_their_digits_beside_an_image_that_is_not_finite():
    images = torch.rand(31, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    images[3] = 0.0

    class Breaking(Layer):
        def forward(self, x):
            return super().forward(torch.where(x.flatten(1).any(1).view(-1, 1, 1, 1), x, torch.nan))

    bank = AugmentationBank({"darker": lambda x: 0.7 * x})
    with pytest.warns(UserWarning, match="not finite"):
        result = probe_model(nn.Sequential(Breaking("map", 1000, torch.float32)), images, bank, layers=["0"])
    others = torch.cat([images[:3], images[4:]])
    clean, augmented = ((x + 1000).double().mean((2, 3)) for x in (others, 0.7 * others))
    assert result.value("sensitivity_pooled", "0") == pytest.approx(
        PLAIN["sensitivity"](clean, augmented).item(), rel=1e-5
    )


def test_a_residual_network_in_bfloat16_reads_as_in_float32_up_to_its_own_rounding():
    torch.manual_seed(0)
    net, images = ResNet((1, 1, 1, 1)).eval(), images_of(16, size=16)
    ours = ("sensitivity", "sensitivity_pooled", "cosine", "spread", "spread_ratio", "retrieval_auc")
    wide = probe_model(net, images, mixed_bank(), layers=["layer1", "layer3"], metrics=ours)
    half = probe_model(net.bfloat16(), images, mixed_bank(), layers=["layer1", "layer3"], metrics=ours)
    assert half.metadata["activation_dtypes"] == ["bfloat16"]
    for name in ours:
        # 8 bits: 2^-8 of an activation, times the mean that a ReLU leaves over the spread, in each of few roundings.
        torch.testing.assert_close(half.tensor(name), wide.tensor(name), rtol=0.05, atol=0.05)
