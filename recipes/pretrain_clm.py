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
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForCausalLM
from weft.recipes.common.corpus import Corpus
from weft.recipes.common.errors import run_command
from weft.recipes.common.evaluation import CausalEvaluator
from weft.recipes.common.generation import sample_texts
from weft.recipes.common.objective import Objective, as_decoder
from weft.recipes.common.packing import TrainingRows, ValidationRows, collate_causal
from weft.recipes.common.plan import Plan
from weft.recipes.common.pretraining import pretrain
from weft.recipes.common.run_arguments import RunArguments


@dataclass
class CausalRunArguments(RunArguments):
    """Length, batch and schedule of the run."""

    output_dir: str = field(
        default="runs/pretrain_clm", metadata={"help": "the run's folder; a run that is there is resumed"}
    )


class CausalObjective(Objective):
    """Every token is predicted from those before it."""

    summary = "A causal language model: it continues text. Trained with Weft; the code it needs is in this folder."
    model_class = WeftForCausalLM
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    headline = ("bits_per_byte",)
    collate = staticmethod(collate_causal)

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return as_decoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": True}

    def lay_out(self, corpus: Corpus, row_length: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> TrainingRows:
        return TrainingRows(corpus, row_length, 0, seed)

    def make_rows(self, layout: TrainingRows, plan: Plan) -> Dataset:
        layout.num_rows = plan.num_rows
        return layout

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> CausalEvaluator:
        return CausalEvaluator(ValidationRows(corpus, row_length))

    def make_samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
    ) -> list[str]:
        return sample_texts(model, tokenizer, prompt)


def main(argv: Sequence[str] | None = None) -> None:
    pretrain(lambda groups: CausalObjective(), [CausalRunArguments], __doc__, argv)


if __name__ == "__main__":
    run_command(main)
