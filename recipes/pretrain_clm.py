"""Pretrain a causal language model: text in, a model that `AutoModelForCausalLM` loads anywhere out.

    accelerate launch recipes/pretrain_clm.py [CONFIG.yaml] [--field value ...]

Without any field it learns from the English text that Python itself carries, in a few minutes on two CPU cores.
On your own text:   accelerate launch recipes/pretrain_clm.py --train_files text.jsonl --output_dir runs/mine
On several GPUs:    accelerate launch --config_file recipes/configs/accelerate/ddp.yaml recipes/pretrain_clm.py my.yaml
That folder has files for other hardware too: two CPU processes, sharded weights (FSDP2), several machines, Slurm.
Killed or stopped, the same command goes on where the last checkpoint was saved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from weft.recipes.common.errors import run_command
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.objectives.causal import CausalObjective
from weft.recipes.pretraining.run import pretrain


@dataclass
class CausalRunArguments(RunArguments):
    """Length, batch and schedule of the run."""

    output_dir: str = field(
        default="runs/pretrain_clm", metadata={"help": "the run's folder; a run that is there is resumed"}
    )


def main(argv: Sequence[str] | None = None) -> None:
    pretrain(lambda parsed: CausalObjective(), [CausalRunArguments], __doc__, argv)


if __name__ == "__main__":
    run_command(main)
