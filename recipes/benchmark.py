"""Measure Weft beside what people use today, in one go: interleaved rounds, medians, ratios, and the machine.

    python recipes/benchmark.py --subject prepare_data --train_files text.txt --tokenizer_name runs/tokenizer
    python recipes/benchmark.py --subject finetune --train_files SST-2/train.tsv --tokenizer_name runs/tokenizer
    python recipes/benchmark.py --subject step --family bert

Subject prepare_data: processor time (all cores) of prepare_data.py against the way of transformers' run_clm.py, which
maps the tokenizer over the lines of the file with `datasets` and then groups them into blocks. Both run in fresh
processes with empty caches; loading the libraries is counted, and measured alone as well. With --megabytes 10 100 1000
it shows how time and memory of prepare_data.py grow, on text of these sizes that is made of the file.

Subject finetune: time of training steps of a classifier whose batches are packed, padded to 128 tokens as transformers'
run_glue.py does, padded to their longest example, or made of examples of like length; same shape, same examples.
Subject pairs: the same of an encoder-decoder, from two files of lines (--train_files a.en a.de).

Subject chat: training steps on the same conversations, of finetune_chat.py and, padded and packed, of TRL's SFTTrainer.

Subjects step, forward, score, head and generate, of Weft and of a stock class (--family) with the same shape and the
same weights, which must give the same losses, log-probabilities or tokens: a training step and the forward pass alone
(time, and memory in fresh processes; also of a classifier, --head classification), the texts of evaluate_lm.py, the
output matrix and its loss alone, and greedy decoding of one stream, of a long prompt the reading too. Rows may be long,
see a window, and hold documents; where Weft cuts rows into tiles, the side "weft, mask" is Weft without that.

    python recipes/benchmark.py --subject step --family modernbert --length 2048 --batch_size 2
    python recipes/benchmark.py --subject generate --family mistral --window 512 --prompt_length 2048

Subject trainer: training of both under transformers' own Trainer, in float32 or on a GPU in bfloat16, compiled if asked
for: tokens per second, MFU and memory, each run in a fresh process, with one attention backend or several.

    python recipes/benchmark.py --subject trainer --num_layers 12 --width 768 --length 1024 --torch_compile true

Subjects allocator and busy: training steps in processes of their own, with freed memory kept as the recipes do and with
the C library's default; and beside busy programs, by how long waiting threads spin. Subject start: processor time of
importing the package, and of commands that answer --help.

Subject road: from the text to a language model in 5, 10 and 20 minutes, tokenizer and preparation included: bits per
byte of held-out text of Weft's pretrain_clm.py --budget and, where they are cloned into --peer_folder, of nanoGPT's and
nanochat's loops and of transformers' run_clm.py, at the same shape and with the same threads; hours in all. The same
command goes on where it ended.

    python recipes/benchmark.py --subject road --train_files text.txt --peer_folder peers --road_dir runs/road

All figures of docs/performance.md in one go, or some of them, into runs/benchmark: a JSON file and a log of each entry,
and a table. What was measured with the same source and fields before is kept, so that a run that was stopped goes on;
fields that are given replace those of all entries that take them.

    python recipes/benchmark.py --entries recipes/configs/benchmark.yaml --only "step-*" --rounds 3
"""

from pathlib import Path

from weft.recipes.benchmarks.arguments import BenchmarkArguments, EntriesArguments
from weft.recipes.benchmarks.entries import choose, read_entries
from weft.recipes.benchmarks.road.arguments import RoadArguments
from weft.recipes.common.command_line import Parsed, parse_arguments
from weft.recipes.common.errors import run_command


def main() -> None:
    parsed = parse_arguments(__doc__, [BenchmarkArguments, RoadArguments, EntriesArguments])
    if parsed[EntriesArguments].entries is not None:
        measure_all(parsed)
        return
    parsed.refuse_without(["only", "output_dir"], "entries")
    arguments, road = parsed[BenchmarkArguments], parsed[RoadArguments]
    arguments.check()
    road.check(arguments.subject)
    if arguments.subject == "road":
        from weft.recipes.benchmarks.road.run import measure_road

        measure_road(arguments, road)
        return
    from weft.recipes.benchmarks.run import measure  # with torch, which no refusal waits for

    measure(arguments)


def measure_all(parsed: Parsed) -> None:
    """Measure the entries of a file that are asked for."""
    asked = parsed[EntriesArguments]
    entries = read_entries(Path(asked.entries), parsed)
    chosen = choose(entries, asked.only)
    from weft.recipes.benchmarks.entry_runs import measure_entries

    measure_entries(entries, chosen, Path(asked.output_dir))


if __name__ == "__main__":
    run_command(main)
