"""Fine-tune a model that turns texts into vectors to search and compare by, or one that reranks what was found.

    accelerate launch recipes/finetune_embeddings.py [CONFIG.yaml] [--field value ...]

Without any field it learns, from Python's own documentation, to find a text by its title or first sentence, which needs
no network.
Your own rows:  --train_file a.jsonl --model_name_or_path runs/pretrain_mlm
                (csv, tsv, jsonl, json, parquet; two texts; three, of which the last does not belong; two with a score;
                a text with a label; SQuAD's JSON as questions and paragraphs. Names of columns tell, or --columns)
Only text:      --train_file text.txt [--unsupervised title|simcse|tsdae]
A known task:   --task stsb --data glue_data/STS-B; squad, cmrc2018 and drcd; pydoc (the default)
A reranker:     --reranker true

Needs sentence-transformers, and gensim for FastText's scores beside the model's.
"""

from collections.abc import Sequence

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.embeddings.command import read_command


def main(argv: Sequence[str] | None = None) -> None:
    parsed = read_command(__doc__, argv)
    from weft.recipes.finetuning.embeddings.run import run_embeddings  # with torch, which no refusal waits for

    run_embeddings(parsed)


if __name__ == "__main__":
    run_command(main)
