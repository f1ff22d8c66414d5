"""Hugging Face's detectors, segmentations, depths and masked autoencoders, in small configurations."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from support.zoo.entry import Entry
from support.zoo.hugging_faces import TOKENS, make

FEW = {**TOKENS, "num_hidden_layers": 4}


def detr(model: str, config: str, **settings: Any) -> nn.Module:
    """A detector with object queries, and two heads."""
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    return make(
        model,
        config,
        use_timm_backbone=False,
        backbone=None,
        backbone_config=transformers.ResNetConfig(**sizes, **settings),
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
    )


def rt_detr() -> nn.Module:
    """A detector without maximum suppression."""
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    backbone = transformers.RTDetrResNetConfig(**sizes, out_features=["stage2", "stage3", "stage4"])
    return make(
        "RTDetrForObjectDetection",
        "RTDetrConfig",
        backbone_config=backbone,
        encoder_in_channels=[16, 24, 32],
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32,
        d_model=32,
        decoder_layers=3,
        decoder_attention_heads=2,
        encoder_attention_heads=2,
        num_queries=6,
        num_denoising=0,
        anchor_image_size=None,
    )


def mask2former() -> nn.Module:
    """Masks that are products of queries and pixels."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return make(
        "Mask2FormerForUniversalSegmentation",
        "Mask2FormerConfig",
        backbone_config=backbone,
        hidden_dim=32,
        mask_feature_size=32,
        feature_size=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=2,
        dim_feedforward=32,
        encoder_feedforward_dim=32,
        num_queries=5,
    )


def upernet() -> nn.Module:
    """A segmentation with an auxiliary head."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    return make(
        "UperNetForSemanticSegmentation",
        "UperNetConfig",
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_in_channels=24,
        auxiliary_channels=16,
    )


def depth_anything() -> nn.Module:
    """A depth of tokens of four depths."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        **FEW, out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False
    )
    return make(
        "DepthAnythingForDepthEstimation",
        "DepthAnythingConfig",
        backbone_config=backbone,
        patch_size=16,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
    )


def unmasked(model: nn.Module, images: torch.Tensor) -> Any:
    """The same order of patches for all images, as the masks are random else."""
    return model(images, noise=torch.arange(16.0).expand(len(images), 16))


HUGGING_FACE_DENSE: dict[str, Entry] = {
    "DetrForObjectDetection": Entry(
        partial(detr, "DetrForObjectDetection", "DetrConfig", out_features=["stage4"]), is_small=True
    ),
    "ConditionalDetrForObjectDetection": Entry(
        partial(detr, "ConditionalDetrForObjectDetection", "ConditionalDetrConfig", out_features=["stage4"])
    ),
    "DeformableDetrForObjectDetection": Entry(
        partial(
            detr,
            "DeformableDetrForObjectDetection",
            "DeformableDetrConfig",
            out_features=["stage2", "stage3", "stage4"],
        ),
        (3, 128, 128),
    ),
    "RTDetrForObjectDetection": Entry(rt_detr, (3, 128, 128)),
    "YolosForObjectDetection": Entry(
        partial(
            make,
            "YolosForObjectDetection",
            "YolosConfig",
            **{**TOKENS, "image_size": [64, 64]},
            num_detection_tokens=5,
        )
    ),
    "Mask2FormerForUniversalSegmentation": Entry(mask2former),
    "SegformerForSemanticSegmentation": Entry(
        partial(
            make,
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 2, 2, 1],
            decoder_hidden_size=16,
        )
    ),
    "UperNetForSemanticSegmentation": Entry(upernet),
    "DPTForDepthEstimation": Entry(
        partial(
            make,
            "DPTForDepthEstimation",
            "DPTConfig",
            **FEW,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16,
        )
    ),
    "DepthAnythingForDepthEstimation": Entry(depth_anything),
    "GLPNForDepthEstimation": Entry(
        partial(
            make,
            "GLPNForDepthEstimation",
            "GLPNConfig",
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 4, 8],
            decoder_hidden_size=16,
        )
    ),
    "ViTMAEModel": Entry(partial(make, "ViTMAEModel", "ViTMAEConfig", **TOKENS), forward=unmasked),
    "ViTMAEForPreTraining": Entry(
        partial(
            make,
            "ViTMAEForPreTraining",
            "ViTMAEConfig",
            **TOKENS,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=3,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=64,
        ),
        forward=unmasked,
    ),
}
