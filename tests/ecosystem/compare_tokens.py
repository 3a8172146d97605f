"""How many lines of files get other ids in llama.cpp than from the tokenizer that was written into a GGUF file.

    python tests/ecosystem/compare_tokens.py data/enwiki/enwiki_2018.txt data/multi30k/train.de

Of each file the first lines that are not blank are read; tokenizers of either cut learn from all of them.
"""

import sys
import tempfile
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.models import make_model, tiny_config
from test_llama_cpp import LlamaCpp

from weft.recipes.conversion.run import convert
from weft.tokenizer.train import PRE_TOKENIZERS, train_tokenizer

LINES, VOCABULARY = 1250, 8192


def first_lines(name: str) -> list[str]:
    """Lines of a file, or of the Python files in a folder."""
    files = sorted(Path(name).glob("*.py")) if Path(name).is_dir() else [Path(name)]
    lines = (line for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    kept = [line for line in lines if line.strip()]
    return kept[:: max(1, len(kept) // LINES)][:LINES]


def main() -> None:
    texts = {name: first_lines(name) for name in sys.argv[1:]}
    for cut in PRE_TOKENIZERS:
        tokenizer = train_tokenizer(chain.from_iterable(texts.values()), "bpe", VOCABULARY, pre_tokenizer=cut)
        with tempfile.TemporaryDirectory() as folder:
            ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
            make_model(tiny_config(vocab_size=len(tokenizer), **ids)).save_pretrained(f"{folder}/weft")
            tokenizer.save_pretrained(f"{folder}/weft")
            convert("export", f"{folder}/weft", Path(f"{folder}/model.gguf"), "gguf")
            theirs = LlamaCpp(Path(f"{folder}/model.gguf"))
            for name, lines in texts.items():
                differ = [line for line in lines if theirs.tokens(line) != tokenizer(line).input_ids]
                print(f"{cut}: {name}: {len(differ)} of {len(lines)} lines have other ids", *differ[:2], sep="\n    ")


if __name__ == "__main__":
    main()
