"""The table of rules: what it holds is what torch has, and each rule gives its result's shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from kornia_lightning_probe.model.tracing import trace
from kornia_lightning_probe.model.tracing.operators.rules import RULES

X = torch.rand(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.rand(4, 4, 3, 3)
INDEX = torch.tensor([0, 2, 4])


def test_most_rules_are_of_operators_that_this_torch_has():
    missing = [name for name in RULES if not hasattr(torch.ops.aten, name)]
    # Backends and versions bring names of their own.
    assert len(missing) < len(RULES) / 5


# An operator, and stride and offset of rows and columns of its result; or why it has no grid.
OPERATORS = {
    "identity": (lambda x: x * 2 + 1, (1, 0, 1, 0)),
    "slice": (lambda x: x[..., 1:7:2, 3:], (2, 1, 1, 3)),
    "negative slice": (lambda x: x[..., -4:, :-2], (1, 4, 1, 0)),
    "narrow": (lambda x: x.narrow(2, 2, 3), (1, 2, 1, 0)),
    "select": (lambda x: x.unsqueeze(1)[:, 0], (1, 0, 1, 0)),
    "unbind": (lambda x: x.unbind(1)[2][:, None], (1, 0, 1, 0)),
    "split": (lambda x: x.split(3, dim=3)[1], (1, 0, 1, 3)),
    "flip": (lambda x: x.flip(2), (-1, 7, 1, 0)),
    "roll and back": (lambda x: x.roll(3, 2).roll(-3, 2), (1, 0, 1, 0)),
    "expand": (lambda x: x[:, None].expand(2, 5, 4, 8, 12).flatten(1, 2), (1, 0, 1, 0)),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), (1, 0, 1, 0)),
    # Copies of a cell lie where it lies, and are halves of it where they are taken for neighbours.
    "repeat interleave": (lambda x: x.repeat_interleave(2, 2), (1, 0, 1, 0)),
    "pairs of copies": (lambda x: F.avg_pool2d(x.repeat_interleave(2, 2), (3, 1), 1), (0.5, 0.25, 1, 0)),
    "index select": (lambda x: x.index_select(2, INDEX), (2, 0, 1, 0)),
    "index": (lambda x: x[:, :, INDEX], (2, 0, 1, 0)),
    "mask": (lambda x: x[:, torch.tensor([True, False, True, True])], (1, 0, 1, 0)),
    "gather": (lambda x: x.gather(1, torch.zeros(2, 1, 8, 12, dtype=torch.long)), (1, 0, 1, 0)),
    "topk": (lambda x: x.topk(2, dim=1).values, (1, 0, 1, 0)),
    "max": (lambda x: x.max(1, keepdim=True).values, (1, 0, 1, 0)),
    "glu": (lambda x: F.glu(x, 1), (1, 0, 1, 0)),
    "softmax": (lambda x: x.softmax(1), (1, 0, 1, 0)),
    "group norm": (lambda x: F.group_norm(x, 2), (1, 0, 1, 0)),
    "instance norm": (lambda x: F.instance_norm(x), (1, 0, 1, 0)),
    "layer norm": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2), (1, 0, 1, 0)),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), (1, 0, 1, 0)),
    "convolution": (lambda x: F.conv2d(x, WEIGHT, stride=2), (2, 1, 2, 1)),
    "same padding": (lambda x: F.conv2d(x, WEIGHT, padding="same"), (1, 0, 1, 0)),
    "pool": (lambda x: F.avg_pool2d(x, 3, 1, 1), (1, 0, 1, 0)),
    "lp pool": (lambda x: F.lp_pool2d(x, 2, 2), (2, 0.5, 2, 0.5)),
    "reflection": (lambda x: F.pad(x, (2, 1, 1, 0), mode="reflect"), (1, -1, 1, -2)),
    "cropped": (lambda x: F.pad(x, (-2, -1, 3, 0)), (1, -3, 1, 2)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (0.5, -0.25, 0.5, -0.25)),
    "unfold": (lambda x: F.unfold(x, 2, stride=2).view(2, 16, 4, 6), (2, 0.5, 2, 0.5)),
    "unfold and fold": (lambda x: F.fold(F.unfold(x, 3, padding=1), (8, 12), 3, padding=1), (1, 0, 1, 0)),
    "tensor unfold": (lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)), (2, 0.5, 2, 0.5)),
    "einsum": (lambda x: torch.einsum("bchw,dc->bdhw", x, WEIGHT[:, :, 0, 0]), (1, 0, 1, 0)),
    "matrix of channels": (lambda x: (WEIGHT[:, :, 0, 0] @ x.flatten(2)).view_as(x), (1, 0, 1, 0)),
    "scatter of a constant": (lambda x: x.index_fill(1, torch.tensor([1]), 0.0), (1, 0, 1, 0)),
    "gate": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), (1, 0, 1, 0)),
    "strips": (lambda x: x.mean(2, keepdim=True) + x.mean(3, keepdim=True), (1, 0, 1, 0)),
    "diagonal": (lambda x: torch.einsum("bcchw->bchw", x[:, :, None].expand(2, 4, 4, 8, 12)), (1, 0, 1, 0)),
    "vector": (lambda x: (x.permute(0, 2, 3, 1) @ torch.ones(4))[:, None], (1, 0, 1, 0)),
    "matrix and vector": (
        lambda x: torch.addmv(torch.zeros(96), x[0].flatten(1).T, torch.ones(4)).view(1, 8, 12),
        "no axis of images",
    ),
    "logits added": (
        lambda x: torch.baddbmm(x.flatten(2), torch.eye(4).expand(2, 4, 4), x.flatten(2)).view_as(x),
        (1, 0, 1, 0),
    ),
    "one element of an axis": (lambda x: x.median(1, keepdim=True).values, (1, 0, 1, 0)),
    "some of an axis": (lambda x: x.kthvalue(2, dim=1).values[:, None], (1, 0, 1, 0)),
    "scattered": (lambda x: x.scatter(1, torch.zeros(2, 1, 8, 12, dtype=torch.long), 0.0), (1, 0, 1, 0)),
    "first token": (lambda x: F.pad(x.flatten(2), (2, 1))[..., 2:-1].view_as(x), (1, 0, 1, 0)),
    "where": (lambda x: torch.where(x > 0.5, x, 0.0), (1, 0, 1, 0)),
    "complex": (lambda x: torch.view_as_real(torch.complex(x, x))[..., 0], (1, 0, 1, 0)),
    "mean": (lambda x: x.mean(), "no cells: a vector"),
    "pooled": (lambda x: F.adaptive_avg_pool2d(x, 1), "no cells: a vector"),
    "attention of channels": (lambda x: (x.flatten(2) @ x.flatten(2).mT).softmax(-1), "no cells: a vector"),
}


class Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1) if x.ndim == 0 else x


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_leaves_cells_where_its_rule_says(name):
    function, expected = OPERATORS[name]
    last = Last()
    with torch.no_grad(), trace({"last": last}, [X]) as tracing:
        output = last(function(X))
    grid = tracing.result(output).activations["last"].grid
    if isinstance(expected, str):
        assert grid == expected
        return
    assert not isinstance(grid, str), grid
    lines = [float(value) for pair in zip(grid.stride, grid.offset, strict=True) for value in pair]
    assert lines == list(expected)
    (maps,) = grid.maps(output)
    assert maps.shape[2:] == grid.size
