"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.gloo_pool import GlooPool


@pytest.fixture(scope="session")
def gloo() -> Iterator[GlooPool]:
    """``gloo(world_size)(function, *args)``: what a module-level function returns on every rank of a gloo group."""
    pool = GlooPool()
    yield pool
    pool.remove()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Nets draw their weights from the global stream: the same in every test."""
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the pool is marked ``distributed``, so that no test has to remember."""
    for item in items:
        if "gloo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.distributed)
