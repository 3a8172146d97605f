"""Pretrain a causal language model: text in, a model that `AutoModelForCausalLM` loads anywhere out.

    accelerate launch recipes/pretrain_clm.py [CONFIG.yaml] [--field value ...]

Without any field it learns from the English text that Python itself carries, in a few minutes on two CPU cores.
On your own text:   accelerate launch recipes/pretrain_clm.py --train_files text.jsonl --output_dir runs/mine
On several GPUs:    accelerate launch --config_file recipes/configs/accelerate/ddp.yaml recipes/pretrain_clm.py my.yaml
That folder has files for other hardware too: two CPU processes, sharded weights (FSDP2), several machines, Slurm.
To write what is missing inside of a text (generate.py --infill) too, add --infill_rate 0.5.
Killed or stopped, the same command goes on where the last checkpoint was saved.
"""

from collections.abc import Sequence

from weft.recipes.common.errors import run_command
from weft.recipes.pretraining.command import pretrain


def main(argv: Sequence[str] | None = None) -> None:
    pretrain("causal", "runs/pretrain_clm", __doc__, argv)


if __name__ == "__main__":
    run_command(main)
