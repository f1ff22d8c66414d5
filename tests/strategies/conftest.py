"""Fixtures for trainings on several processes."""

import pytest
import torch


@pytest.fixture
def one_thread(monkeypatch):
    """OpenMP's threads do not survive a fork, and a process that waits for them hangs; Lightning would ask for more."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
