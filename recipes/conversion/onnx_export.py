"""A checkpoint as ONNX graphs, in the layout that transformers.js and Optimum read, checked before it is kept."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig
from weft.interop import InteropError
from weft.recipes.common.errors import RecipeError, first_line, optional_package
from weft.recipes.common.files import new_folder, read_json, write_json
from weft.recipes.conversion.earlier_versions import tokenizer_fields
from weft.recipes.conversion.loading import head_of, load_weft, load_weft_config, tokenizer_for
from weft.recipes.conversion.onnx_graphs import Graph, graphs_of
from weft.recipes.conversion.onnx_int8 import tell_loss, texts_to_compare, write_int8
from weft.recipes.conversion.onnx_runtime import check_graphs
from weft.tokenizer.pre_tokenizers import spell_out_scripts

# Protobuf holds no more in one file; what is larger gets its weights in a file of its own.
LARGEST_FILE = 1_900_000_000
# head -> model_type and class under which programs that know no Weft find what they need: which graphs there are, and
# how many layers their caches have. What is computed stands in the graphs alone.
CARRIERS = {
    "base": ("bert", "BertModel"),
    "masked": ("bert", "BertForMaskedLM"),
    "pretraining": ("bert", "BertForPreTraining"),
    "sequence": ("bert", "BertForSequenceClassification"),
    "tokens": ("bert", "BertForTokenClassification"),
    "question": ("bert", "BertForQuestionAnswering"),
    "choice": ("bert", "BertForMultipleChoice"),
    "causal": ("qwen3", "Qwen3ForCausalLM"),
    "seq2seq": ("t5", "T5ForConditionalGeneration"),
}
KEPT = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
KEPT += ("num_key_value_heads", "head_dim", "max_position_embeddings", "type_vocab_size", "is_encoder_decoder")
KEPT += (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "id2label",
    "label2id",
    "problem_type",
)


def export_onnx(checkpoint: str, output: Path, int8: bool = False, text: Path | None = None) -> None:
    """Write a Weft checkpoint as ONNX graphs; raises RecipeError and InteropError, and writes nothing then.

    Args:
        int8: also write the graphs with weights of 8 bits, and say what that costs.
        text: the file of texts, one a line, that the cost is measured on; None: documentation that Python carries.
    """
    optional_package("onnxruntime", "export onnx", "onnxscript")
    config = load_weft_config(checkpoint)
    head = head_of(config)
    _refuse(config, head)
    tokenizer = tokenizer_for(checkpoint, config, head)
    texts = texts_to_compare(text, tokenizer) if int8 else []
    model = load_weft(checkpoint, head, dtype=torch.float32, attn_implementation=None).requires_grad_(False)
    output.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(output) as folder:
        graphs = folder / "onnx"
        graphs.mkdir()
        large = [name for graph in graphs_of(model, head) if (name := _write(graph, graphs, checkpoint))]
        difference = check_graphs(model, head, tokenizer, graphs)
        _write_fields(model, head, tokenizer, folder, large)
        on = "sample text" if tokenizer is not None else "random ids (there is no tokenizer)"
        print(f"{type(model).__name__} in PyTorch and in ONNX Runtime differ by {difference:.1e} at most, on {on}")
        if int8:
            write_int8(graphs)
            print(tell_loss(model, head, graphs, tokenizer, texts))
    files = sorted(path.name for path in (output / "onnx").glob("*.onnx"))
    print(f"written: {output} with {', '.join(f'onnx/{name}' for name in files)}")


def _refuse(config: WeftConfig, head: str) -> None:
    """Refuse what no graph can hold: work that depends on how long a text is, and an encoder-decoder without a head."""
    kinds = {one.get("rope_type") for one in config.rope_parameters_by_layer_type().values()}
    by_length = sorted(kinds & {"dynamic", "longrope"}) if config.position_embedding_type == "rope" else []
    if by_length:
        raise InteropError(
            f"its rotary positions are scaled by the length of each text (rope_type {by_length[0]!r}), which a graph "
            "cannot do: write another rope_type, such as 'yarn', into its config.json and train it on."
        )
    if config.has_states:
        raise InteropError(
            "its linear_attention or recurrent layers take a step for each token, and a graph for texts of any length "
            "has no number of steps: use it with transformers."
        )
    if config.is_encoder_decoder and head == "base":
        raise InteropError(
            "an encoder-decoder without a head is not exported: save it as WeftForConditionalGeneration."
        )


def _write(graph: Graph, folder: Path, checkpoint: str) -> str | None:
    """Trace a graph and write its file; returns the file's name where its weights lie in another one.

    Raises:
        RecipeError: PyTorch cannot trace it.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    names = {"input_names": graph.inputs, "output_names": graph.outputs}
    with _quiet():
        try:
            program = torch.onnx.export(
                graph.module, graph.example, dynamo=True, dynamic_shapes=graph.axes, verbose=False, **names
            )
        except torch.onnx.OnnxExporterError as error:
            reason = first_line(error.__cause__ or error)
            raise RecipeError(
                f"{checkpoint} is not converted: PyTorch cannot trace its {graph.name} ({reason})."
            ) from error
    ClearMetadataAndDocStringPass()(program.model)  # lines of source and folders of this machine, as large as a model
    file = f"{graph.name}.onnx"
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    beside = f"{file}_data" if weights > LARGEST_FILE else None
    onnx_ir.save(program.model, folder / file, external_data=beside)
    return file if beside else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter logs and warns of while it traces a graph."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_fields(
    model: PreTrainedModel, head: str, tokenizer: PreTrainedTokenizerBase | None, folder: Path, large: list[str]
) -> None:
    """Write config, generation config and tokenizer beside the graphs."""
    write_json(folder / "config.json", carrier_config(model.config, head, large))
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    if tokenizer is None:
        return
    tokenizer.save_pretrained(folder)
    fields = folder / "tokenizer_config.json"
    write_json(fields, tokenizer_fields(read_json(fields)))
    if (folder / "tokenizer.json").is_file():
        write_json(folder / "tokenizer.json", spell_out_scripts(read_json(folder / "tokenizer.json")))


def carrier_config(config: WeftConfig, head: str, large: list[str]) -> dict[str, Any]:
    """The config.json that other programs read, with Weft's own under "weft"; `large` names files whose weights lie
    beside them."""
    model_type, architecture = CARRIERS[head]
    fields = {name: getattr(config, name) for name in KEPT if getattr(config, name) is not None}
    if head == "seq2seq":
        names = {"num_layers": "num_hidden_layers", "num_heads": "num_key_value_heads", "d_kv": "head_dim"}
        fields |= {there: getattr(config, here) for there, here in names.items()}
        fields |= {"num_decoder_layers": config.num_decoder_layers, "d_model": config.hidden_size}
    options = {"use_external_data_format": dict.fromkeys(large, 1)} if large else {}
    own = {name: value for name, value in config.to_diff_dict().items() if name not in ("auto_map", "dtype")}
    return {
        "model_type": model_type,
        "architectures": [architecture],
        **fields,
        "transformers.js_config": options,
        "weft": own,
    }
