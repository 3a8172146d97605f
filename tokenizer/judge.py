"""The command `weft.recipes.judge_tokenizer`, where it is looked for beside `train.py`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("weft.recipes.judge_tokenizer", run_name="__main__")
