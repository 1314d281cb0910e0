"""Models that tests make are the same on every rank."""

import pytest


@pytest.fixture(autouse=True)
def same_models_on_every_rank():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
