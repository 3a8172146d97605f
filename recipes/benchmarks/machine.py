"""What a figure was measured on: the processor or GPU, the versions, and the commit of the source."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

PACKAGES = ("weft-lm", "torch", "transformers", "tokenizers", "datasets")
ROOT = Path(__file__).resolve().parents[2]
SOURCE = ("modeling", "recipes", "tokenizer")


def machine() -> str:
    """The processor, its cores and what PyTorch uses of it, the GPU where there is one, and Python."""
    told = [_processor(), f"{os.cpu_count()} cores", torch.backends.cpu.get_cpu_capability()]
    told += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([*told, f"Python {platform.python_version()}"])


def versions() -> dict[str, str]:
    """Of the packages that figures depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """The commit of the source that runs, with a digest of changes since; None where it is in no repository."""
    found = _git("rev-parse", "HEAD")
    if found is None:
        return None
    changes = _git("diff", "HEAD", "--", *SOURCE)
    return f"{found}+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else found


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    """The name that Linux gives the processor, elsewhere its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
