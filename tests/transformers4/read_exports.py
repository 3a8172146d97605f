"""Runs in an environment with transformers 4: what it makes of each exported folder, as JSON on standard output.

python read_exports.py FOLDER   # with a sub-folder for each export, beside its input.pt and texts.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer


def read_export(folder: Path) -> dict[str, Any]:
    """The difference from what Weft computes, what was missing, and the ids of texts."""
    expected = torch.load(folder / "input.pt", weights_only=True)
    model_class = getattr(transformers, expected["class"], None)
    if model_class is None:
        return {"absent": True}
    options = {"attn_implementation": "eager", "output_loading_info": True}
    model, info = model_class.from_pretrained(folder / "export", **options)
    with torch.no_grad():
        logits = model.eval()(**expected["batch"]).logits
    difference = (logits - expected["logits"]).abs()
    if logits.shape[:2] == expected["batch"]["input_ids"].shape:
        difference = difference[expected["batch"]["attention_mask"].bool()]
    read = {
        "difference": float(difference.max()),
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
    }
    texts = folder / "texts.json"
    if texts.is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder / "export")
        read["ids"] = [tokenizer(text).input_ids for text in json.loads(texts.read_text())]
        read["special"] = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
    return read


def refusals(folder: Path) -> list[str]:
    """What loading a Weft folder with its own code says, by each Auto class."""
    said = []
    for auto_class in (AutoConfig, AutoModel, AutoModelForCausalLM):
        try:
            auto_class.from_pretrained(folder, trust_remote_code=True)
        except ImportError as error:
            said.append(str(error))
    return said


def main() -> None:
    transformers.logging.set_verbosity_error()
    folder = Path(sys.argv[1])
    exports = {path.parent.name: read_export(path.parent) for path in sorted(folder.glob("*/input.pt"))}
    print(json.dumps({"exports": exports, "refusals": refusals(folder / "weft")}))


if __name__ == "__main__":
    main()
