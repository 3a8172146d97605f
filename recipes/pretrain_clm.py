"""Pretrain a causal language model: text in, a model that `AutoModelForCausalLM` loads anywhere out.

    accelerate launch recipes/pretrain_clm.py [CONFIG.yaml] [--field value ...]

Without any field it learns from the English text that Python itself carries, in a few minutes on two CPU cores.
On your own text:   accelerate launch recipes/pretrain_clm.py --train_files text.jsonl --output_dir runs/mine
On several GPUs:    accelerate launch --multi_gpu --num_processes 8 recipes/pretrain_clm.py my.yaml
On two CPU processes: accelerate launch --multi_gpu --num_processes 2 recipes/pretrain_clm.py --use_cpu true
Killed or stopped, the same command goes on where the last checkpoint was saved.
"""

from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from weft.recipes.common.corpus import Corpus
from weft.recipes.common.errors import run_command
from weft.recipes.common.evaluation import CausalEvaluator
from weft.recipes.common.generation import generate_texts, start_ids
from weft.recipes.common.packing import ValidationRows, collate_causal
from weft.recipes.common.plan import RunArguments
from weft.recipes.common.pretraining import Objective, pretrain

SAMPLES = 3


@dataclass
class CausalRunArguments(RunArguments):
    """Length, batch and schedule of the run."""

    output_dir: str = field(
        default="runs/pretrain_clm", metadata={"help": "the run's folder; a run that is there is resumed"}
    )


def make_evaluator(corpus: Corpus, sequence_length: int) -> CausalEvaluator:
    return CausalEvaluator(ValidationRows(corpus, sequence_length))


def make_samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    set_seed(0)
    length = max(1, min(120, tokenizer.model_max_length - len(start_ids(tokenizer, prompt))))
    options = {"max_new_tokens": length, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.95}
    return generate_texts(model, tokenizer, [prompt] * SAMPLES, **options)


OBJECTIVE = Objective(
    summary="A causal language model: it continues text. Trained with Weft; the code it needs is in this folder.",
    is_causal=True,
    auto_class="AutoModelForCausalLM",
    pipeline_tag="text-generation",
    make_evaluator=make_evaluator,
    collate=collate_causal,
    make_samples=make_samples,
)


def main() -> None:
    pretrain(OBJECTIVE, CausalRunArguments, __doc__)


if __name__ == "__main__":
    run_command(main)
