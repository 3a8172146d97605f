"""Whether the launcher asks for weights that are sharded over processes, and what then trains them."""

from weft.recipes.common.processes import launcher_uses

# Optimizers of transformers that treat each number of a weight by itself, so that it does not matter where it is.
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd")


def shards_weights() -> bool:
    """Whether the launcher asks for weights that are sharded over processes."""
    return launcher_uses("FSDP") or launcher_uses("DEEPSPEED")


def describe_sharding() -> str:
    """What a run's plan says of it."""
    kind = "ZeRO-3" if launcher_uses("DEEPSPEED") else "FSDP2"
    return f", weights sharded over all processes ({kind})" if shards_weights() else ""
