"""timm's convolutional, token and mixed nets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn

from support.zoo.entry import Entry


def make(name: str, **settings: Any) -> nn.Module:
    """A net of timm's with random weights."""
    return pytest.importorskip("timm").create_model(name, **settings)


def _entry(name: str, side: int = 64, *, is_small: bool = False, **settings: Any) -> Entry:
    return Entry(partial(make, name, **settings), (3, side, side), is_small=is_small)


_AT_64 = (
    "cspresnet50",
    "hrnet_w18_small",
    "res2net50_26w_4s",
    "ghostnet_100",
    "poolformer_s12",
    "edgenext_xx_small",
    "fastvit_t8",
    "repvgg_a0",
    "convnextv2_atto",
    "nf_resnet26",
    "mambaout_femto",
    "starnet_s1",
    "efficientvit_b0",
    "dpn48b",
)
_AT_224 = (
    "hiera_tiny_224",
    "nest_tiny",
    "xcit_nano_12_p16_224",
    "tnt_s_legacy_patch16_224",
    "twins_svt_small",
    "twins_pcpvt_small",
    "mixer_s32_224",
    "gmlp_s16_224",
    "efficientformerv2_s0",
    "coat_tiny",
    "coat_lite_tiny",
    "pit_ti_224",
    "cait_xxs24_224",
    "sequencer2d_s",
    "pvt_v2_b0",
    "davit_tiny",
    "tiny_vit_5m_224",
    "visformer_tiny",
    "volo_d1_224",
    "swinv2_cr_tiny_ns_224",
    "gcvit_xxtiny",
    "coatnet_nano_rw_224",
)
TIMM: dict[str, Entry] = {
    "mobilevitv2_050": _entry("mobilevitv2_050", is_small=True),
    "vovnet39a": _entry("vovnet39a", is_small=True),
    "dla34": _entry("dla34", is_small=True),
    "levit_128s": _entry("levit_128s", 224, is_small=True),
    "deit_tiny_distilled": _entry("deit_tiny_distilled_patch16_224", is_small=True, img_size=64),
    "crossvit_tiny_240": _entry("crossvit_tiny_240", 240, is_small=True),
    **{name: _entry(name) for name in _AT_64},
    **{name: _entry(name, 224) for name in _AT_224},
    "mobilevit_xxs": _entry("mobilevit_xxs"),
    "resnet18 without a head": _entry("resnet18", num_classes=0),
    "resnet18 as a pyramid": _entry("resnet18", features_only=True),
}
