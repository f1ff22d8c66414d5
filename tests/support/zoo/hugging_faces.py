"""Hugging Face's image encoders and classifiers, in small configurations."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from support.zoo.entry import Entry

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 2, 1]}


def make(model: str, config: str, **settings: Any) -> nn.Module:
    """A net of Hugging Face's with random weights."""
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def two_towers(model: str, config: str) -> nn.Module:
    """Two towers, of which one reads texts."""
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 64}
    text |= {"vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99, "bos_token_id": 98}
    settings = {"text_config": text, "vision_config": TOKENS}
    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def three_texts(model: nn.Module, images: torch.Tensor) -> Any:
    """The same texts for all images."""
    return model(input_ids=torch.full((3, 8), 99), pixel_values=images)


def _entry(model: str, config: str, *, is_small: bool = False, **settings: Any) -> Entry:
    return Entry(partial(make, model, config, **settings), is_small=is_small)


HUGGING_FACE: dict[str, Entry] = {
    "ViTModel": _entry("ViTModel", "ViTConfig", is_small=True, **TOKENS),
    "CLIPVisionModel": _entry("CLIPVisionModel", "CLIPVisionConfig", is_small=True, **TOKENS),
    "CLIPModel": Entry(partial(two_towers, "CLIPModel", "CLIPConfig"), forward=three_texts, is_small=True),
    "ViTForImageClassification": _entry("ViTForImageClassification", "ViTConfig", **TOKENS),
    "SiglipModel": Entry(partial(two_towers, "SiglipModel", "SiglipConfig"), forward=three_texts),
    "SiglipVisionModel": _entry("SiglipVisionModel", "SiglipVisionConfig", **TOKENS),
    "DeiTForImageClassificationWithTeacher": _entry("DeiTForImageClassificationWithTeacher", "DeiTConfig", **TOKENS),
    "BeitForImageClassification": _entry("BeitForImageClassification", "BeitConfig", **TOKENS),
    "Data2VecVisionForImageClassification": _entry(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", **TOKENS
    ),
    "Dinov2Model": _entry("Dinov2Model", "Dinov2Config", **TOKENS),
    "Dinov2ForImageClassification": _entry("Dinov2ForImageClassification", "Dinov2Config", **TOKENS),
    "ConvNextV2ForImageClassification": _entry(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 3, 1]
    ),
    "SwinForImageClassification": _entry(
        "SwinForImageClassification",
        "SwinConfig",
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
    "Swinv2ForImageClassification": _entry(
        "Swinv2ForImageClassification",
        "Swinv2Config",
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
    "HieraForImageClassification": Entry(
        partial(
            make,
            "HieraForImageClassification",
            "HieraConfig",
            image_size=[224, 224],
            embed_dim=16,
            depths=[1, 2, 3, 1],
            num_heads=[1, 2, 4, 8],
        ),
        (3, 224, 224),
    ),
    "CvtForImageClassification": _entry(
        "CvtForImageClassification", "CvtConfig", embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 4]
    ),
    "PvtForImageClassification": _entry(
        "PvtForImageClassification",
        "PvtConfig",
        image_size=64,
        hidden_sizes=[16, 32, 32, 64],
        depths=[1, 2, 2, 1],
        num_attention_heads=[1, 2, 2, 4],
    ),
    "PvtV2ForImageClassification": _entry(
        "PvtV2ForImageClassification",
        "PvtV2Config",
        image_size=64,
        hidden_sizes=[16, 32, 32, 64],
        depths=[1, 2, 2, 1],
        num_attention_heads=[1, 2, 2, 4],
    ),
    "MobileNetV1ForImageClassification": _entry(
        "MobileNetV1ForImageClassification", "MobileNetV1Config", depth_multiplier=0.25
    ),
    "MobileNetV2ForImageClassification": _entry(
        "MobileNetV2ForImageClassification", "MobileNetV2Config", depth_multiplier=0.35
    ),
    "MobileViTForImageClassification": _entry(
        "MobileViTForImageClassification",
        "MobileViTConfig",
        image_size=64,
        hidden_sizes=[32, 32, 32],
        neck_hidden_sizes=[8, 16, 16, 24, 24, 32, 64],
    ),
    "MobileViTV2ForImageClassification": _entry(
        "MobileViTV2ForImageClassification", "MobileViTV2Config", image_size=64, width_multiplier=0.5
    ),
    "ResNetForImageClassification": _entry("ResNetForImageClassification", "ResNetConfig", **STAGES),
    "RegNetForImageClassification": _entry("RegNetForImageClassification", "RegNetConfig", groups_width=8, **STAGES),
    "LevitForImageClassificationWithTeacher": Entry(
        partial(
            make,
            "LevitForImageClassificationWithTeacher",
            "LevitConfig",
            hidden_sizes=[32, 48, 64],
            num_attention_heads=[2, 3, 4],
            depths=[2, 2, 2],
        ),
        (3, 224, 224),
    ),
    "FocalNetForImageClassification": _entry(
        "FocalNetForImageClassification", "FocalNetConfig", image_size=64, embed_dim=16, depths=[1, 1, 3, 1]
    ),
    "VideoMAEForVideoClassification": Entry(
        partial(make, "VideoMAEForVideoClassification", "VideoMAEConfig", num_frames=4, **TOKENS),
        (4, 3, 64, 64),
        layout="video",
    ),
}
