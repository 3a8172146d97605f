"""What baselines.py does once its fields are read: each model once on the same text, then the table of all."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import transformers

from weft.recipes.benchmarks.baselines.arguments import FREE, HMM, MODELS, NETWORKS, NGRAMS, BaselineArguments
from weft.recipes.benchmarks.baselines.report import PICTURE, TABLE, Result, as_markdown, draw
from weft.recipes.benchmarks.baselines.similarity import compare_vectors, describe_pairs
from weft.recipes.classical.folders import WEIGHTS, save_token_model
from weft.recipes.classical.hidden_markov import learn
from weft.recipes.classical.ngrams import count_ngrams
from weft.recipes.classical.sampling import write_text as write_sample
from weft.recipes.classical.text import Documents, score_held_out
from weft.recipes.classical.token_model import TokenModel
from weft.recipes.classical.word_vectors import read_pairs
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError, refusing_unwritable
from weft.recipes.common.files import new_folder, read_json, write_json, write_text
from weft.recipes.common.processes import world_size
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare, report
from weft.recipes.evaluation.model_loading import load_model
from weft.recipes.generation.generate_text import generate_texts, start_ids
from weft.recipes.pretraining.command import read_command
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.run import run_objective
from weft.recipes.training.run_folder import METRICS, finished_folder, open_run, opened, start_run

RESULT, RESULTS = "result.json", "baselines.json"
SAMPLE_TOKENS, SAMPLING = 60, {"temperature": 0.8, "top_p": 0.95}


def compare(parsed: Parsed) -> None:
    """Learn the models that are not there yet, and write table and picture of all that are.

    Raises:
        RecipeError: the folder holds results of other settings, or a field cannot be obeyed.
        Stopped: SIGTERM ended the training of a network, which the same command goes on with.
    """
    if world_size() > 1:
        raise RecipeError("baselines.py works in one process: start it with python instead of a launcher.")
    arguments, data = parsed[BaselineArguments], parsed[DataArguments]
    folder, settings = Path(arguments.output_dir), arguments.settings(data)
    pairs = None if arguments.similarity_file is None else read_pairs(Path(arguments.similarity_file))
    has_begun = any((folder / name).is_dir() for name in MODELS)
    defaults = BaselineArguments().settings(DataArguments())
    transformers.logging.disable_progress_bar()
    with (
        refusing_unwritable(),
        opened(folder, lambda: open_run(folder, settings, defaults, FREE, has_begun), arguments.plan),
    ):
        if arguments.plan:
            print("\n".join(f"  {name:15} {what}" for name, what in _plan(arguments)))
            return
        corpus = Corpus.open(arguments.data) if arguments.data else prepare(data, folder / "data")
        start_run(folder, settings, has_begun)
        print(report(corpus), flush=True)
        bench = Bench(arguments, corpus, folder)
        bench.learn_all()
        bench.write(compare_vectors(arguments, corpus, bench.networks(), pairs), with_picture=True)
        print(f"finished: {folder / TABLE} has the table, the samples and the vectors of words")


def _plan(arguments: BaselineArguments) -> list[tuple[str, str]]:
    """Each model, and how much it learns from."""
    length = ", ".join(f"{name} {value}" for name, value in arguments.length.items())
    what = dict.fromkeys(NGRAMS, "counts all of the text")
    what[HMM] = f"{arguments.states} states, {arguments.iterations} passes over the text"
    what |= {name: f"{network.title}, {length}" for name, network in NETWORKS.items()}
    return [(name, what[name]) for name in arguments.models] + [
        ("word vectors", ", ".join(arguments.vectors) or "none")
    ]


class Bench:
    """Models on one text, each in a folder of its own; what a folder holds whole is not learnt again."""

    def __init__(self, arguments: BaselineArguments, corpus: Corpus, folder: Path) -> None:
        """Raises RecipeError where a network cannot be trained as asked for."""
        self.arguments, self.corpus, self.folder = arguments, corpus, folder
        self.tokenizer, self.train = corpus.tokenizer(), Documents(corpus, "train")
        self.vocab_size = corpus.description["vocab_size"]
        self.has_start = corpus.description["start_token_id"] is not None
        self.runs = {name: self._read_network(name) for name in arguments.models if name in NETWORKS}
        self.results: dict[str, Result] = {}

    def learn_all(self) -> None:
        """Learn each model, and write the table after each."""
        for name in dict.fromkeys(self.arguments.models):
            path = self.folder / name / RESULT
            if path.is_file():
                self.results[name] = Result(**read_json(path))
                print(f"{name} is finished: {self.results[name].told()}", flush=True)
                continue
            print(f"{name} ...", flush=True)
            self.results[name] = self._train(name) if name in NETWORKS else self._learn(name)
            print(f"{name}: {self.results[name].told()}", flush=True)
            self.write()

    def networks(self) -> dict[str, Path]:
        """The folders of the networks that are finished."""
        return {NETWORKS[name].title: self.folder / name for name in self.results if name in NETWORKS}

    def write(self, similarity: dict[str, Any] | None = None, with_picture: bool = False) -> None:
        """Write the table and baselines.json of what is there, in the end also the picture."""
        order = [self.results[name] for name in MODELS if name in self.results]
        made = {"models": [dataclasses.asdict(each) for each in order], "word_similarity": similarity}
        splits, vocabulary = self.corpus.description["splits"], self.vocab_size
        told = "" if similarity is None else describe_pairs(similarity)
        with finished_folder(self.folder) as staging:
            write_json(staging / RESULTS, {**made, "text": {"vocab_size": vocabulary, **splits}})
            page = as_markdown(order, self.corpus.description, self.arguments.sequence_length, told)
            write_text(staging / TABLE, page)
            if with_picture:
                draw(order, staging / PICTURE)

    def _learn(self, name: str) -> Result:
        """Learn a model that is no network, and keep it in its folder."""
        began = time.perf_counter()
        model, passes = self._count(name) if name in NGRAMS else self._learn_hmm()
        seconds = time.perf_counter() - began
        sample = write_sample(model, self.tokenizer, max_new_tokens=SAMPLE_TOKENS, seed=self.arguments.seed, **SAMPLING)
        size, of = model.size
        with new_folder(self.folder / name) as partial:
            save_token_model(model, self.tokenizer, partial)
            result = Result(
                name,
                model.title,
                **score_held_out(model, self.corpus),
                tokens=passes * self.train.tokens,
                passes=passes,
                seconds=seconds,
                size=size,
                size_of=of,
                bytes_on_disk=(partial / WEIGHTS).stat().st_size,
                sample=sample,
            )
            write_json(partial / RESULT, dataclasses.asdict(result))
        return result

    def _count(self, name: str) -> tuple[TokenModel, int]:
        return count_ngrams(self.train, NGRAMS[name], self.vocab_size, self.train.tokens), 1

    def _learn_hmm(self) -> tuple[TokenModel, int]:
        number = self.arguments.iterations

        def watch(iteration: int, loss: float) -> None:
            print(f"iteration {iteration:>3}/{number} | loss before it {loss:.4f}", flush=True)

        fields = (self.arguments.states, number, self.vocab_size, self.has_start, self.arguments.seed)
        return learn(self.train, *fields, watch), number

    def _read_network(self, name: str) -> tuple[Objective, Parsed]:
        words = self.arguments.words_of(NETWORKS[name], self.corpus.folder, self.folder / name)
        return read_command("causal", str(self.folder / name), None, words, ["causal"])

    def _train(self, name: str) -> Result:
        """Train a network as pretrain_clm.py does, or go on with it."""
        folder, began = self.folder / name, time.perf_counter()
        run_objective(*self.runs[name])
        metrics = read_json(folder / METRICS)
        rate = metrics["tokens_per_second"]  # without evaluations, and of all sessions of a run that was resumed
        seconds = metrics["tokens"] / rate if rate else time.perf_counter() - began
        result = Result(
            name,
            NETWORKS[name].title,
            **{each: metrics[f"eval_{each}"] for each in ("loss", "perplexity", "bits_per_byte")},
            tokens=metrics["tokens"],
            passes=metrics["epochs"],
            seconds=seconds,
            size=metrics["parameters"],
            size_of="parameters",
            bytes_on_disk=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            sample=_written_by(folder, self.arguments.seed),
        )
        write_json(folder / RESULT, dataclasses.asdict(result))
        return result


def _written_by(folder: Path, seed: int) -> str:
    """A text that a checkpoint writes."""
    model, tokenizer, _ = load_model(str(folder), "causal")
    transformers.set_seed(seed)
    longest = max(1, min(SAMPLE_TOKENS, tokenizer.model_max_length - len(start_ids(tokenizer, ""))))
    options = {"max_new_tokens": longest, "do_sample": True, "top_k": 0, **SAMPLING}
    return generate_texts(model, tokenizer, [""], **options)[0]
