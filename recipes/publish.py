"""Publish a finished run on the Hub: weights, code, tokenizer and card.

    python recipes/publish.py runs/pretrain_clm me/my-model

Log in first with `hf auth login`, or set HF_TOKEN.
"""

import argparse
from pathlib import Path

from weft.recipes.common.errors import run_command
from weft.recipes.training.card_fields import REVISIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("name", help="NAME or OWNER/NAME of the repository")
    how = "also publish each checkpoint, as revision step-N; with words as chck_NM too, by the words it has seen"
    parser.add_argument("--hub_revisions", nargs="?", const="true", default="false", choices=REVISIONS, help=how)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    arguments = parser.parse_args()
    from weft.recipes.training.hub import publish  # with the Hub's client, which --help does not wait for

    address = publish(arguments.folder, arguments.name, arguments.hub_revisions, arguments.private)
    print(f"published {arguments.folder} as {address}")


if __name__ == "__main__":
    run_command(main)
