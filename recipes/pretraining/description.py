"""What the plan of a pretraining run says of its text, its model and its machine."""

from weft.recipes.common.wording import counted
from weft.recipes.pretraining.hyperparameters import describe_hyperparameters
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.sources import describe_mixture
from weft.recipes.training.model_setup import describe_added
from weft.recipes.training.sharding import describe_sharding


def describe_corpus(run: PretrainingRun) -> str:
    """What the plan says of the text."""
    training = run.corpus.description["splits"]["train"]["documents"]
    text = f"{run.corpus.folder} ({run.packed.num_places:,} training tokens in {counted(training, 'document')})"
    if run.blocks is None:
        return text
    source = run.blocks.dataset_name or counted(len(run.blocks.train_files), "file")
    return f"stream of {source} in blocks of {run.blocks.block_bytes:,} bytes, first {text}"


def plan_lines(run: PretrainingRun) -> list[tuple[str, str]]:
    """What the plan says of all else but lengths."""
    config, source = run.config, run.model_arguments.model_name_or_path
    backend = run.model_arguments.attn_implementation or "sdpa"
    device = "GPU" if run.on_gpu else f"CPU, {counted(run.threads, 'thread')} per process"
    layers = f"{config.num_hidden_layers}"
    if config.is_encoder_decoder:
        layers = f"{layers} and {config.num_decoder_layers}"
    names = [source.name for source in run.corpus.sources]
    mixed = run.mixture and describe_mixture(run.mixture, names, run.packed.source_sizes, run.plan.max_steps)
    derived = describe_hyperparameters(run.given, run.arguments, run.parameters, run.plan.total_tokens)
    return [
        (
            "model",
            f"{run.parameters.total:,} parameters ({layers} layers of {config.hidden_size}, "
            f"vocabulary {config.vocab_size:,}), {f'from {source}' if source else 'new'}",
        ),
        *describe_added(run.extras),
        *run.objective.plan_lines(),
        *_teacher_lines(run),
        *([("sources", mixed)] if mixed else []),
        ("attention", backend),
        ("dtype", "computed in bfloat16, float32 weights" if run.bf16 else "float32"),
        ("device", device + describe_sharding()),
        (
            "schedule",
            f"{run.arguments.optimizer}, {run.arguments.lr_scheduler_type}, learning rate "
            f"{run.arguments.learning_rate:g}, weight decay {run.arguments.weight_decay:g}",
        ),
        *([("derived", derived)] if derived else []),
    ]


def _teacher_lines(run: PretrainingRun) -> list[tuple[str, str]]:
    """Who is learnt from, and what asking costs."""
    if run.teacher is None:
        return []
    share = run.head_share(run.plan.max_steps)
    more = run.teacher_flops_per_token(share) / run.flops_per_token(share)
    return [("teacher", f"{run.teacher.describe()}; a step computes about {1 + more:.2f} times as much as without")]
