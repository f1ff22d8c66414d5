"""Which layers and which embedding real architectures have: golden lists that have been looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model

pytestmark = pytest.mark.filterwarnings("ignore")

GOLDEN = json.loads(Path(__file__).with_name("architectures.json").read_text())
"""By name: the layers, and the embedding."""

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}


def torchvisions(name: str, **settings: Any) -> nn.Module:
    """A net of torchvision's with random weights."""
    models = pytest.importorskip("torchvision").models
    if name.startswith(("fcn", "deeplab", "lraspp")):
        settings["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    return models.get_model(name, weights=None, **settings)


def timms(name: str, **settings: Any) -> nn.Module:
    """A net of timm's with random weights."""
    return pytest.importorskip("timm").create_model(name, **settings)


def hugging_faces(model: str, config: str, **settings: Any) -> nn.Module:
    """A small net of Hugging Face's."""
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def detr() -> nn.Module:
    """A detector with object queries, and two heads."""
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    return hugging_faces(
        "DetrForObjectDetection",
        "DetrConfig",
        use_timm_backbone=False,
        backbone=None,
        backbone_config=transformers.ResNetConfig(**sizes, out_features=["stage4"]),
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
    )


def clip() -> nn.Module:
    """Two towers, of which one reads texts."""
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 64}
    text |= {"vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99, "bos_token_id": 98}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=TOKENS, projection_dim=16))


def three_texts(model: nn.Module, images: torch.Tensor) -> Any:
    """The same texts for all images."""
    return model(input_ids=torch.full((3, 8), 99), pixel_values=images)


def kornias(name: str) -> nn.Module:
    """A descriptor of Kornia's with random weights."""
    return getattr(pytest.importorskip("kornia").feature, name)(pretrained=False)


Make = Callable[[], nn.Module]
SMALL: dict[str, tuple[Make, int]] = {
    # How it is made, and the side of its images.
    "resnet18": (lambda: torchvisions("resnet18"), 64),
    "squeezenet1_1": (lambda: torchvisions("squeezenet1_1"), 64),
    "googlenet": (lambda: torchvisions("googlenet"), 64),
    "mobilenet_v3_small": (lambda: torchvisions("mobilenet_v3_small"), 64),
    "lraspp_mobilenet_v3_large": (lambda: torchvisions("lraspp_mobilenet_v3_large"), 64),
    "mobilevitv2_050": (lambda: timms("mobilevitv2_050"), 64),
    "vovnet39a": (lambda: timms("vovnet39a"), 64),
    "dla34": (lambda: timms("dla34"), 64),
    "levit_128s": (lambda: timms("levit_128s"), 224),
    "deit_tiny_distilled": (lambda: timms("deit_tiny_distilled_patch16_224", img_size=64), 64),
    "crossvit_tiny_240": (lambda: timms("crossvit_tiny_240"), 240),
    "ViTModel": (lambda: hugging_faces("ViTModel", "ViTConfig", **TOKENS), 64),
    "CLIPVisionModel": (lambda: hugging_faces("CLIPVisionModel", "CLIPVisionConfig", **TOKENS), 64),
    "CLIPModel": (clip, 64),
    "DetrForObjectDetection": (detr, 64),
    "HardNet": (lambda: kornias("HardNet"), 32),
}
LARGE: dict[str, tuple[Make, int]] = {
    "inception_v3": (lambda: torchvisions("inception_v3"), 96),
    "vit_b_32": (lambda: torchvisions("vit_b_32", image_size=64), 64),
    "hiera_tiny_224": (lambda: timms("hiera_tiny_224"), 224),
    "nest_tiny": (lambda: timms("nest_tiny"), 224),
    "xcit_nano_12_p16_224": (lambda: timms("xcit_nano_12_p16_224"), 224),
    "tnt_s_legacy_patch16_224": (lambda: timms("tnt_s_legacy_patch16_224"), 224),
    "twins_svt_small": (lambda: timms("twins_svt_small"), 224),
    "mixer_s32_224": (lambda: timms("mixer_s32_224"), 224),
    "efficientformerv2_s0": (lambda: timms("efficientformerv2_s0"), 224),
    "coat_tiny": (lambda: timms("coat_tiny"), 224),
    "ViTForImageClassification": (lambda: hugging_faces("ViTForImageClassification", "ViTConfig", **TOKENS), 64),
}
for _name in (
    "densenet121",
    "swin_t",
    "convnext_tiny",
    "fcn_resnet50",
    "deeplabv3_mobilenet_v3_large",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "efficientnet_b0",
    "alexnet",
    "vgg11_bn",
):
    LARGE[_name] = (lambda name=_name: torchvisions(name)), 64
for _name in (
    "cspresnet50",
    "hrnet_w18_small",
    "res2net50_26w_4s",
    "ghostnet_100",
    "poolformer_s12",
    "edgenext_xx_small",
    "fastvit_t8",
):
    LARGE[_name] = (lambda name=_name: timms(name)), 64
MARKED = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


@pytest.mark.parametrize("name", MARKED)
def test_layers_from_stem_to_head_and_the_embedding(name):
    make, side = (SMALL | LARGE)[name]
    torch.manual_seed(0)
    net = make().eval()
    channels = 1 if name == "HardNet" else 3
    images = torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(0))
    forward = three_texts if name == "CLIPModel" else None
    run = forward or (lambda model, batch: model(batch))
    with torch.no_grad():
        before = leaves(run(net, images))
    state = {key: value.clone() for key, value in net.state_dict().items()}
    bank = AugmentationBank({"dark": lambda batch: batch * 0.5})

    result = probe_model(net, images, bank, metrics=["sensitivity"], forward=forward)

    assert {"layers": list(result.layers), "embedding": result.metadata["embedding"]} == GOLDEN[name]
    # Random weights may leave a layer dead, which is named; all else is finite.
    dead = result.metadata.get("dead_layers", ())
    values = [result.value("sensitivity", layer) for layer in result.layers if layer not in dead]
    assert all(map(math.isfinite, values))
    with torch.no_grad():
        after = leaves(run(net, images))
    assert len(before) == len(after) > 0
    assert all(map(torch.equal, before, after))
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def leaves(output: Any) -> list[torch.Tensor]:
    """All tensors of an output."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
