"""What every test runs under: no network, one thread (tiny tensors gain nothing from more) and a fixed seed."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "ATEN_CPU_CAPABILITY" in os.environ:  # kernels that were compiled for other instructions are not taken for these
    folder = f"{tempfile.gettempdir()}/torchinductor_{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)

from pathlib import Path

import pytest
import torch
import transformers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out flex attention on processors for which PyTorch does not compile it."""
    if not torch.cuda.is_available() and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        for item in items:
            if "flex" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="PyTorch compiles flex attention for AVX2 and newer only"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of made-up sentences in characters, without word boundaries."""
    from helpers import runs  # not before the settings above hold

    return runs.make_corpus(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="session")
def spared_of_collection() -> None:
    """Keep what is imported out of garbage collection, which each Trainer asks for when it begins."""
    import weft.recipes.pretraining.run  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def spared_of_waiting_for_the_disk() -> Iterator[None]:
    """Let no run wait until the disk has what it wrote: no test takes the power away, which alone would show it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Start every test from the same random numbers, so that the order of the tests changes nothing."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_verbosity() -> Iterator[None]:
    """Let transformers warn of as much as before: commands that a test calls silence it for their process."""
    before = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(before)


@pytest.fixture(scope="session")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of English sentences that knows where words and sentences begin."""
    from helpers import runs

    return runs.make_corpus_of_sentences(tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="session")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Chinese sentences."""
    from helpers import runs

    return runs.make_corpus_of_sentences(tmp_path_factory.mktemp("chinese"), chinese=True)


@pytest.fixture(autouse=True, scope="module")
def fresh_compiler() -> Iterator[None]:
    """Forget what a file's tests compiled: PyTorch stops compiling a function after a few shapes, and flex attention
    that is not compiled computes other numbers."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
