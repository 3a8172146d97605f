"""Which tensors of a model are one: what its tensors say, where its config says something else."""

from collections.abc import Collection

from transformers import PreTrainedModel


def head_matrix(model: PreTrainedModel) -> str | None:
    """The name of the matrix that turns hidden states into logits of tokens; None: the model has no such head."""
    head = model.get_output_embeddings()
    return next((f"{name}.weight" for name, module in model.named_modules() if module is head), None)


def copies(model: PreTrainedModel) -> list[tuple[str, str]]:
    """Pairs of names of tensors that are one whatever the config says: all tied ones but the matrix of the head.

    Without `tie_word_embeddings`, transformers 5 keeps apart what earlier versions always had once, such as the
    embedding of BART's two stacks and the bias of BERT's head: their files hold it under one name only.
    """
    head = model.get_output_embeddings()
    tensors = dict(model.named_parameters(remove_duplicate=False))
    pairs = []
    for prefix, module in model.named_modules():
        for names in (getattr(module, "_tied_weights_keys", None) or {}).items():
            copy, source = (f"{prefix}.{name}" if prefix else name for name in names)
            if copy in tensors and source in tensors and (head is None or tensors[copy] is not head.weight):
                pairs.append((copy, source))
    return pairs


def fill_copies(model: PreTrainedModel, missing: Collection[str]) -> list[str]:
    """Tie tensors that were not loaded to copies that were; returns the names of those that have a value now."""
    filled = []
    for pair in copies(model):
        lacking = [name for name in pair if name in missing and name not in filled]
        if len(lacking) == 1:
            loaded = next(name for name in pair if name not in lacking)
            parent, _, own = lacking[0].rpartition(".")
            setattr(model.get_submodule(parent), own, model.get_parameter(loaded))
            filled += lacking
    return filled


def tell_tying(model: PreTrainedModel) -> None:
    """Let the config say whether the head is tied, as the tensors have it."""
    head = model.get_output_embeddings()
    if head is not None and hasattr(model.config, "tie_word_embeddings"):
        model.config.tie_word_embeddings = head.weight is model.get_input_embeddings().weight
