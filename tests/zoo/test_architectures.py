"""Which layers and which embedding real architectures have: golden lists that have been looked at."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.zoo import ZOO
from support.zoo.table import GOLDEN, PAGE, rows_of_page

from kornia_lightning_probe import probe_model

pytestmark = pytest.mark.filterwarnings("ignore")

MARKED = [name if entry.is_small else pytest.param(name, marks=pytest.mark.slow) for name, entry in ZOO.items()]


@pytest.mark.parametrize("name", MARKED)
def test_layers_from_stem_to_head_and_the_embedding(name):
    entry = ZOO[name]
    torch.manual_seed(0)
    net, images = entry.make().eval(), entry.inputs(4)
    with torch.no_grad():
        before = leaves(entry.run(net, entry.inputs(4)))
    state = {key: value.clone() for key, value in net.state_dict().items()}

    result = probe_model(
        net, images, entry.bank(), metrics=["sensitivity"], forward=entry.forward, image_keys=entry.keys or None
    )

    found = {"embedding": result.metadata["embedding"], "layers": " ".join(result.layers)}
    assert found == GOLDEN[name]
    # Random weights may leave a layer dead, which is named; all else is finite.
    dead = result.metadata.get("dead_layers", ())
    values = [result.value("sensitivity", layer) for layer in result.layers if layer not in dead]
    assert all(map(math.isfinite, values))
    with torch.no_grad():
        after = leaves(entry.run(net, entry.inputs(4)))
    assert len(before) == len(after) > 0
    assert all(map(torch.equal, before, after))
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_the_page_has_a_row_for_each_with_its_layers_and_embedding():
    expected = {
        name: (str(len(golden["layers"].split())), golden["embedding"]) for name, golden in sorted(GOLDEN.items())
    }
    rows = rows_of_page(PAGE.read_text(encoding="utf-8"))
    assert {name: tuple(row[:2]) for name, row in sorted(rows.items())} == expected
    assert set(GOLDEN) == set(ZOO)


def leaves(output: Any) -> list[torch.Tensor]:
    """All tensors of an output."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
