"""Compare language models of all generations on one text, from n-grams to attention.

    python recipes/baselines.py [--train_files text.txt] [--field value ...]

On the same prepared text, tokenizer and held-out documents: n-grams of 1 to 5 tokens (interpolated modified
Kneser-Ney), a hidden Markov model (Baum-Welch), an Elman network, an LSTM, an LSTM with attention and Weft's causal
default, each trained as pretrain_clm.py does; and word vectors (Word2Vec, FastText; pip install gensim) beside the
networks' input embeddings. Without any field: the text that Python itself carries.

The folder then holds a table (README.md, baselines.json), a picture and a folder for each model; the networks are
ordinary checkpoints, and evaluate_lm.py --baseline FOLDER scores any of them beside another model. The same command
goes on where it was stopped, and --models adds others.
"""

from collections.abc import Sequence

from weft.recipes.benchmarks.baselines.arguments import BaselineArguments
from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.data.arguments import DataArguments


def main(argv: Sequence[str] | None = None) -> None:
    parsed = parse_arguments(__doc__, [BaselineArguments, DataArguments], argv=argv)
    parsed[BaselineArguments].check_with(parsed)
    from weft.recipes.benchmarks.baselines.run import compare  # with torch, which no refusal waits for

    compare(parsed)


if __name__ == "__main__":
    run_command(main)
