"""What every test runs under: no network, one thread (tiny tensors gain nothing from more) and a fixed seed."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Start every test from the same random numbers, so that the order of the tests changes nothing."""
    torch.manual_seed(0)
