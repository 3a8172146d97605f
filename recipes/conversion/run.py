"""What convert.py does once its words are read: load a checkpoint, convert it, compare both models, write one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig, WeftPreTrainedModel
from weft.interop import InteropError, find_family
from weft.interop.convert import check_same, export_model, import_model, sample_batch
from weft.interop.family import TASKS, Family
from weft.recipes.common.checkpoints import load_config, load_reporting
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import new_folder
from weft.recipes.common.hardware import settle_on_processor
from weft.recipes.common.wording import some_of
from weft.recipes.conversion.earlier_versions import make_readable_by_4
from weft.recipes.conversion.gguf_export import export_gguf
from weft.recipes.conversion.loading import (
    EAGER,
    find_tokenizer,
    head_of,
    language_model_of,
    load_model,
    load_weft,
    load_weft_config,
    tokenizer_for,
)
from weft.recipes.conversion.onnx_export import export_onnx
from weft.recipes.conversion.sentence_modules import copy_modules, find_modules

TRANSFORM = "classifier_transform."
# What is written as files of another kind than checkpoints of transformers
FORMATS: dict[str, Callable[..., None]] = {"onnx": export_onnx, "gguf": export_gguf}


def convert(command: str, checkpoint: str, output: Path, family: str | None, **options: Any) -> None:
    """Carry out "import", or "export" to a family or format; raises RecipeError where it cannot be done.

    Args:
        options: of the format, as `export_onnx` and `export_gguf` take them.
    """
    settle_on_processor()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        if command == "import":
            import_checkpoint(checkpoint, output)
        elif family in FORMATS:
            FORMATS[family](checkpoint, output, **options)
        else:
            export_checkpoint(checkpoint, family, output)
    except InteropError as error:
        given = load_config(checkpoint) if command == "export" and error.fields else None
        switched_on = [name for name in error.fields if getattr(given, name, None) is True]
        without = " ".join(f"--{name} false" for name in switched_on)
        hint = f" To train a model without: {without}." if switched_on else ""
        raise RecipeError(f"{checkpoint} is not converted: {error}{hint}") from error


def import_checkpoint(checkpoint: str, output: Path) -> None:
    """Write a Weft checkpoint with the weights of another family's; raises RecipeError and InteropError."""
    whole = load_config(checkpoint)
    if whole.model_type == WeftConfig.model_type:
        raise RecipeError(f"{checkpoint} is a Weft checkpoint already: to write it as another family, use export.")
    config = language_model_of(whole)
    family = find_family(config.model_type)
    head = head_of(config)
    family.import_config(config, head)  # what cannot be expressed is said before any weights are loaded
    find_modules(checkpoint)
    part = {} if config is whole else {"config": config}
    stock, unused = load_model(family.stock_class(head), checkpoint, **part)
    _refuse_unknown(unused, family, config, checkpoint)
    tokenizer = find_tokenizer(checkpoint)
    model, dropped = import_model(stock, family, head)
    kept = _classifier_start(checkpoint, family, head, {*stock.state_dict(), *unused})
    _write(checkpoint, stock, model, head, tokenizer, output, more=kept)
    if dropped or unused:
        print(f"left out, since {type(model).__name__} has no use for them: {', '.join([*dropped, *unused])}")
    if kept:
        print(f"kept beside the model, for a classifier to start from: {', '.join(kept)}")
    if config is not whole:
        print(f"note: of {whole.model_type} the language model is converted, and what sees images is left out")


def export_checkpoint(checkpoint: str, family_name: str, output: Path) -> None:
    """Write a checkpoint of another family with the weights of a Weft one; raises RecipeError and InteropError."""
    config = load_weft_config(checkpoint)
    family = find_family(family_name)
    head = head_of(config)
    family.export_config(config, head)
    model = load_weft(checkpoint, head)
    stock = export_model(model, family, head)
    _write(checkpoint, model, stock, head, tokenizer_for(checkpoint, config, head), output, family)
    fault = family.earlier_fault(stock.config)
    if fault is not None:
        print(f"note: {fault}")


def _write(
    checkpoint: str,
    source: PreTrainedModel,
    result: PreTrainedModel,
    head: str,
    tokenizer: PreTrainedTokenizerBase | None,
    output: Path,
    family: Family | None = None,
    more: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save a converted model, and keep it if what was written computes what its source does.

    Args:
        family: which is written; None: Weft.
        more: tensors to write beside the model's.
    """
    if result.can_generate() and source.can_generate():
        result.generation_config = source.generation_config
    output.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(output) as folder:
        tensors = {**result.state_dict(), **more} if more else None
        if family is not None and family.released is not None:
            tensors = family.released(result.state_dict(), result.config)
        result.save_pretrained(folder, state_dict=tensors, save_original_format=tensors is None)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        modules = copy_modules(checkpoint, folder)
        if family is not None:
            make_readable_by_4(folder, family.earlier(result.config))
        written = type(result).from_pretrained(folder, **EAGER).eval()
        ours, theirs = (written, source) if isinstance(written, WeftPreTrainedModel) else (source, written)
        difference = check_same(ours, theirs, head, sample_batch(ours, head, tokenizer))
    on = "sample text" if tokenizer is not None else "random ids (there is no tokenizer)"
    print(f"{type(ours).__name__} and {type(theirs).__name__} differ by {difference:.1e} at most, on {on}")
    print(f"written: {output} loads with {type(result).__name__}.from_pretrained")
    if modules:
        print(f"and with SentenceTransformer, with the same {' and '.join(modules)} behind it")


def _classifier_start(checkpoint: str, family: Family, head: str, names: set[str]) -> dict[str, torch.Tensor]:
    """Tensors of Weft's classifier that the family's classifier would start with from this checkpoint, such as BERT's
    pooler; `names` are those of the checkpoint."""
    if head in TASKS or "sequence" not in family.heads:
        return {}
    wanted = [entry for entry in family.heads["sequence"].weights if entry.weft[0].startswith(TRANSFORM)]
    if not any({entry.stock, entry.stock.removeprefix(family.body)} & names for entry in wanted):
        return {}
    classifier, info = load_reporting(family.stock_class("sequence"), checkpoint, **EAGER)
    tensors = classifier.state_dict()
    found = [entry for entry in wanted if entry.stock in tensors and entry.stock not in info.missing]
    return {entry.weft[0]: tensors[entry.stock].clone() for entry in found}


def _refuse_unknown(names: list[str], family: Family, config: PreTrainedConfig, checkpoint: str) -> None:
    """Raise RecipeError where a tensor of the checkpoint belongs to no class of its family: to none of its heads."""
    known: set[str] = set()
    for head in family.heads if names else ():
        with torch.device("meta"):
            model = family.stock_class(head)._from_config(config)
        known |= {name for key in model.state_dict() for name in (key, f"{model.base_model_prefix}.{key}")}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(
            f"{checkpoint} holds {some_of(unknown)}, for which no class of {config.model_type} has a place: it is "
            "another model than its config.json says, or its tensors bear other names. Rename or remove them."
        )
