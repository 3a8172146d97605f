"""Where transformers' own test mixins come from: the source distribution of the installed version, or a checkout.

The mixins are not part of the installed package and their code does not belong into this repository, so it is
fetched on first use into `.cache/upstream/`, which git ignores. It can be imported as `tests`, the name it has at
home. The source distribution leaves some of the files out that its mixins import; `stand_ins/` holds small
replacements, and a test that needs the real file does not run.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

CACHE = Path(__file__).parents[2] / ".cache" / "upstream"
STAND_INS = Path(__file__).parent / "stand_ins"


def make_importable() -> None:
    """Put transformers' tests on the import path, under the name `tests`.

    The environment variable TRANSFORMERS_CHECKOUT may name a git checkout of transformers, at the version that is
    installed: it has all files, so that the tests of generation, export and pipelines run too.
    """
    checkout = os.environ.get("TRANSFORMERS_CHECKOUT")
    root = Path(checkout).resolve() if checkout else CACHE / f"transformers-{transformers.__version__}"
    if checkout is None and not root.is_dir():
        download(root)
    sys.path.insert(0, str(root))


def download(root: Path) -> None:
    """Fetch the source distribution of the installed transformers and keep its tests in `root`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        requirement = f"transformers=={transformers.__version__}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, requirement], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        unpacked = Path(folder, root.name)
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.startswith(f"{root.name}/tests/")]
            tar.extractall(folder, members=members, filter="data")
        # The list of tiny models on the Hub is one of the files left out; the stand-ins come after what is here.
        Path(unpacked, "tests", "__init__.py").write_text(f"__path__.append({str(STAND_INS)!r})\n")
        if not root.is_dir():
            unpacked.rename(root)


def optional_mixin(module: str, name: str) -> type:
    """A mixin of `tests.<module>`, or an empty class where this version has no such module, or not all it imports."""
    try:
        return getattr(importlib.import_module(f"tests.{module}"), name)
    except (ImportError, FileNotFoundError):
        return type(name, (), {})
