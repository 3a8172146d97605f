"""The fields of baselines.py, and what they may be."""

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weft.recipes.classical.word_vectors import VECTORS
from weft.recipes.common.command_line import Parsed, parse_count, parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.training.model_arguments import PRESETS

LONGEST = 5  # n-grams
NGRAMS = {f"ngram-{order}": order for order in range(1, LONGEST + 1)}
HMM = "hmm"
RECURRENT, ATTENTION = "recurrent", "full_attention"
PLAIN = {"attention_gate": "false", "value_residual": "false"}  # what new models of Weft have besides


@dataclass(frozen=True)
class Network:
    """A neural language model: what it is, its layers, and fields of WeftConfig."""

    title: str
    fields: dict[str, str]
    mixer: str = RECURRENT
    last_mixer: str | None = None

    def layer_types(self, layers: int) -> list[str]:
        """The kind of each of so many layers."""
        return [*[self.mixer] * (layers - 1), self.last_mixer or self.mixer]


NETWORKS = {
    "elman": Network("Elman network", {"recurrent_cell": "rnn", **PLAIN}),
    "lstm": Network("LSTM", {"recurrent_cell": "lstm", **PLAIN}),
    "lstm-attention": Network("LSTM with attention", {"recurrent_cell": "lstm", **PLAIN}, last_mixer=ATTENTION),
    "transformer": Network("transformer, Weft's default", {}, mixer=ATTENTION),
}
MODELS = (*NGRAMS, HMM, *NETWORKS)
# Fields that only say what else is compared or written beside.
FREE = {"output_dir", "models", "vectors", "similarity_file", "plan"}


@dataclass
class BaselineArguments(Options):
    """What is compared, and how much each may learn."""

    output_dir: str = option("runs/baselines", "folder of the results; what is finished there is kept")
    models: list[str] = option(
        list(MODELS),
        f"which models: {', '.join(MODELS)}",
        choices=MODELS,
    )
    data: str | None = option(None, "a folder made by prepare_data.py, instead of raw text")
    states: int = option(64, "hidden states of the hidden Markov model", least=1)
    iterations: int = option(20, "passes over the text in which the hidden Markov model learns", least=1)
    preset: str = option("tiny", f"shape of the networks: {', '.join(PRESETS)}", choices=PRESETS)
    sequence_length: int = option(256, "tokens of a row of the networks", least=2)
    tokens: str | None = option(None, "tokens that each network sees, e.g. 20M; without tokens or budget 300k")
    budget: str | None = option(None, "or the time that each network may take, e.g. 10m")
    vectors: list[str] = option(
        list(VECTORS),
        "which word vectors are learnt and compared with the networks' input embeddings: word2vec, fasttext (both by "
        "gensim, and left out where it is not installed) or none",
        choices=(*VECTORS, "none"),
    )
    similarity_file: str | None = option(
        None,
        "pairs of words with scores, word,word,score in each line (as WordSim-353); without it pairs from lists of "
        "Python's own names",
    )
    seed: int = option(42, "of all that is drawn", least=0, below=2**32)
    plan: bool = option(False, "print the plan and stop")

    def check_with(self, parsed: Parsed) -> None:
        """Refuse what cannot be, before any work is done; raises RecipeError."""
        self.check()
        data = parsed[DataArguments]
        parsed.refuse_together(asdict(data), "data", "the folder is prepared already")
        parsed.refuse_together(("budget",), "tokens", "each is the length of the networks' training")
        if self.tokens is not None:
            parse_count(self.tokens)
        if self.budget is not None:
            parse_duration(self.budget)
        if not self.data:
            data.check()
        asked = [name for name in self.vectors if name != "none"]
        if "none" in self.vectors and asked:
            raise RecipeError(f"vectors has none and {', '.join(asked)}: choose.")
        self.vectors = asked
        if asked and importlib.util.find_spec("gensim") is None:
            if "vectors" in parsed.given:
                raise RecipeError(f"{' and '.join(asked)} need gensim: pip install gensim, or leave vectors out.")
            print(f"note: {' and '.join(asked)} are left out: pip install gensim", flush=True)
            self.vectors = []
        if self.similarity_file is not None and not Path(self.similarity_file).is_file():
            raise RecipeError(
                f"similarity_file {self.similarity_file} is no file: give one with word,word,score lines."
            )

    @property
    def length(self) -> dict[str, str]:
        """How long each network is trained, as a field of pretrain_clm.py."""
        return {"budget": self.budget} if self.budget else {"tokens": self.tokens or "300k"}

    def settings(self, data: DataArguments) -> dict[str, Any]:
        """All fields, as run.json notes them."""
        return asdict(data) | asdict(self)

    def words_of(self, network: Network, corpus: Path, folder: Path) -> list[str]:
        """The command line of pretrain_clm.py that trains a network."""
        fields = {
            "data": corpus,
            "output_dir": folder,
            "preset": self.preset,
            "sequence_length": self.sequence_length,
            "seed": self.seed,
            "save_total_limit": 1,
            **self.length,
            **network.fields,
        }
        layers = PRESETS[self.preset]["num_hidden_layers"]
        words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
        return words if network.mixer == ATTENTION else [*words, "--layer_types", *network.layer_types(layers)]
