"""Heads, embeddings, rows and grids of real architectures with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kornia_lightning_probe.model.tracing import Grid, Rows, Trace, trace


def define_missing_operators() -> None:
    """Defines what torchvision's package expects of its compiled part, which does not load beside a CPU build."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # Operators vanish with their library.
        define_missing_operators.library = library


define_missing_operators()
pytestmark = pytest.mark.filterwarnings("ignore")


def traced(net: nn.Module, images: Tensor, pick: Callable[[Any], Any] = lambda output: output) -> Trace:
    """The trace of a net, whose output is seen to be the same with and without it."""
    layers = {name: module for name, module in net.eval().named_modules() if name}
    with torch.no_grad():
        plain = pick(net(images))
        with trace(layers, [images], model=net) as tracing:
            output = pick(net(images))
    assert torch.equal(plain, output)
    return tracing.result(output)


def assert_all_is_known(found: Trace) -> None:
    """Every activation that the image reaches has its rows, and cells or a reason why there are none."""
    for activation in found.activations.values():
        assert activation.depends is not None, activation.name
        if activation.depends:
            assert isinstance(activation.rows, Rows), activation
            assert isinstance(activation.grid, Grid) or activation.grid.startswith(GRIDLESS), activation


GRIDLESS = ("no cells", "branches disagree", "its cells are rolled", "its cells lie along one coordinate")

TORCHVISION = {
    # Name: side of the images, the head's first activation, the embedding.
    "alexnet": (64, "classifier.6", "classifier.5"),
    "vgg11_bn": (32, "classifier.6", "classifier.4"),
    "resnet18": (64, "fc", "avgpool"),
    "squeezenet1_1": (64, "classifier.1", "features.12"),
    "densenet121": (64, "classifier", "features.norm5"),
    "googlenet": (64, "fc", "avgpool"),
    "mobilenet_v2": (64, "classifier.1", "features.18.2"),
    "mobilenet_v3_small": (64, "classifier.3", "classifier.1"),
    "shufflenet_v2_x0_5": (64, "fc", "conv5.2"),
    "regnet_y_400mf": (64, "fc", "avgpool"),
    "convnext_tiny": (64, "classifier.2", "classifier.0"),
    "swin_t": (64, "head", "avgpool"),
    "fcn_resnet50": (64, "classifier.4", "classifier.2"),
    "deeplabv3_mobilenet_v3_large": (64, "classifier.4", "classifier.3"),
    "lraspp_mobilenet_v3_large": (64, "classifier.low_classifier", "classifier.scale.2"),
}


def first_tensor(output: Any) -> Any:
    return output["out"] if isinstance(output, dict) else output


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    models = pytest.importorskip("torchvision").models
    side, head, embedding = TORCHVISION[name]
    none = {"weights": None}
    if name.startswith(("fcn", "deeplab", "lraspp")):
        none["weights_backbone"] = None
    if name == "googlenet":
        none["init_weights"] = False
    torch.manual_seed(0)
    found = traced(models.get_model(name, **none), torch.rand(2, 3, side, side), first_tensor)
    assert found.head.layers[0] == head
    assert found.embedding() == embedding
    assert_all_is_known(found)


TIMM = {
    "dla34": ("fc", "global_pool.pool"),
    "levit_128s": ("head.linear", "head_dist.bn"),
    "deit_tiny_distilled_patch16_224": ("head", "norm"),
    "crossvit_tiny_240": ("head.0", "norm.1"),
    "efficientformerv2_s0": ("head", "norm"),
    "xcit_nano_12_p16_224": ("head", "norm"),
    "mixer_s32_224": ("head", "norm"),
    "hiera_tiny_224": ("head.fc", "head.norm"),
    "nest_tiny": ("head", "global_pool.pool"),
    "mobilevit_xxs": ("head.fc", "head.global_pool.pool"),
    "twins_svt_small": ("head", "norm"),
    "coat_tiny": ("head", "aggregate"),
    "tnt_s_legacy_patch16_224": ("head", "norm"),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    head, embedding = TIMM[name]
    torch.manual_seed(0)
    net = timm.create_model(name)
    side = net.default_cfg["input_size"][-1]
    found = traced(net, torch.rand(2, 3, side, side))
    assert found.head.layers[0] == head
    assert found.embedding() == embedding
    assert_all_is_known(found)


def test_inner_blocks_of_tnt_are_unfolded():
    timm = pytest.importorskip("timm")
    net = timm.create_model("tnt_s_legacy_patch16_224", depth=1)
    found = traced(net, torch.rand(2, 3, 224, 224))
    inner = found.activations["blocks.0.norm_in"]
    # 196 patches of 16 pixels hold 4 x 4 inner ones of 4 pixels each.
    assert inner.shape == (2 * 196, 16, 24)
    assert inner.rows.unfold(torch.rand(6 * 196, 16, 24))[0].shape == (6, 196, 16, 24)
    assert inner.grid.size == (56, 56)
    assert [float(stride) for stride in inner.grid.stride] == [4, 4]


def test_the_order_of_hieras_tokens_is_known():
    timm = pytest.importorskip("timm")
    found = traced(timm.create_model("hiera_tiny_224"), torch.rand(2, 3, 224, 224))
    grid = found.activations["blocks.0"].grid
    assert not grid.is_raster
    # The convolution of 7 x 7 with stride 4 and padding 3 begins at pixel 0.
    assert [float(value) for value in (*grid.stride, *grid.offset)] == [4, 4, 0, 0]


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}

HUGGING_FACE = {
    # Model, configuration, settings, entry of the output, the head's first activation or None, the embedding.
    "ViT": ("ViTForImageClassification", "ViTConfig", SMALL, "logits", "classifier", "vit.layernorm"),
    "ViT encoder": ("ViTModel", "ViTConfig", SMALL, "last_hidden_state", None, "layernorm"),
    "CLIP encoder": ("CLIPVisionModel", "CLIPVisionConfig", SMALL, "last_hidden_state", None, "encoder.layers.2"),
    "CLIP pooled": ("CLIPVisionModel", "CLIPVisionConfig", SMALL, "pooler_output", None, "post_layernorm"),
    "DeiT": (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        SMALL,
        "logits",
        "cls_classifier",
        "deit.layernorm",
    ),
    "YOLOS": (
        "YolosForObjectDetection",
        "YolosConfig",
        {**SMALL, "image_size": [64, 64], "num_detection_tokens": 5},
        "logits",
        "class_labels_classifier.layers.2",
        "class_labels_classifier.layers.1",
    ),
    "SegFormer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16},
        "logits",
        "decode_head.classifier",
        "decode_head.activation",
    ),
    "DPT": (
        "DPTForDepthEstimation",
        "DPTConfig",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
        },
        "predicted_depth",
        "head.head.4",
        "head.head.3",
    ),
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name):
    transformers = pytest.importorskip("transformers")
    model, config, settings, entry, head, embedding = HUGGING_FACE[name]
    torch.manual_seed(0)
    net = getattr(transformers, model)(getattr(transformers, config)(**settings))
    found = traced(net, torch.rand(2, 3, 64, 64), lambda output: output[entry])
    assert found.head.exists == (head is not None)
    assert found.head.layers[:1] == (() if head is None else (head,))
    assert found.embedding() == embedding
    assert_all_is_known(found)


def test_hugging_faces_detr():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
    )
    torch.manual_seed(0)
    net = transformers.DetrForObjectDetection(config)
    found = traced(net, torch.rand(2, 3, 64, 64), lambda output: output.logits)
    assert found.head.layers == ("class_labels_classifier",)
    assert found.embedding() == "model.decoder.layernorm"
    constant = [name for name, each in found.activations.items() if each.depends is False]
    # Object queries know nothing of the image before they have looked at it.
    assert constant[0] == "model.position_embedding"
    assert "model.decoder.layers.0.self_attn.q_proj" in constant
    assert "model.decoder.layers.0.encoder_attn" not in constant


def test_the_text_tower_of_clip_depends_on_no_image():
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text |= {"vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99, "bos_token_id": 98}
    config = transformers.CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=16)
    torch.manual_seed(0)
    net = transformers.CLIPModel(config).eval()
    ids, images = torch.full((3, 8), 99), torch.rand(2, 3, 64, 64)
    layers = {name: module for name, module in net.named_modules() if name}
    with torch.no_grad(), trace(layers, [images], model=net) as tracing:
        output = net(input_ids=ids, pixel_values=images)
    found = tracing.result(output.logits_per_image)
    assert found.embedding() == "visual_projection"
    depends = {each.layer.split(".")[0].split("_")[0]: each.depends for each in found.activations.values()}
    assert depends["text"] is False
    assert depends["visual"] is True
