"""A hidden Markov model of tokens, learnt by the Baum-Welch algorithm with scaled probabilities: L. Rabiner: A Tutorial
on Hidden Markov Models and Selected Applications in Speech Recognition (1989).

Documents are walked through side by side, the longest first: at each place, those that have got so far are one product
of matrices. What a state is expected to emit is one product with a sparse matrix. hmmlearn's CategoricalHMM takes one
document after another, in loops over pairs of states: about RATIO times as long with 64 states, and its
smoothing of emissions is the same number for each token.

Emissions and transitions have Dirichlet priors, as if each state had been seen `EMITTED` times to emit what the text
holds as a whole, and gone `LEFT` times to any state: no token is impossible. An iteration never makes the product of
likelihood and prior smaller.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from weft.recipes.classical.ngrams import Block
from weft.recipes.classical.token_model import Arrays, TokenModel, places_of

EMITTED, LEFT = 100.0, 1.0
UNSEEN = 0.5  # how often each token was seen in the text as a whole, beside how often it was
State = tuple[bool, np.ndarray]  # whether nothing was read yet, and the probability of each state of the next token


class HiddenMarkovModel(TokenModel):
    """Hidden states that follow one another and emit a token each.

    Attributes:
        initial: probability of each state of a document's first token [states].
        transitions: of each state to follow a state [states, states].
        emissions: of each token in a state [vocabulary, states]; columns sum to one.
        has_start: documents begin with a start token, which stands before the first state.
    """

    KIND = "hmm"

    def __init__(self, initial: np.ndarray, transitions: np.ndarray, emissions: np.ndarray, has_start: bool) -> None:
        self.initial, self.transitions, self.emissions = initial, transitions, emissions
        self.has_start, self.vocab_size = has_start, len(emissions)

    @classmethod
    def random(
        cls, states: int, unigrams: np.ndarray, has_start: bool, seed: int, dtype: Any = np.float32
    ) -> "HiddenMarkovModel":
        """One to begin with: each state emits tokens of the text more or less often, and goes to any state."""
        draw = np.random.default_rng(seed)
        transitions = draw.dirichlet(np.ones(states), size=states)
        # states that differ much from the beginning: from nearly equal ones it takes twice as many iterations
        emissions = unigrams[:, None] * draw.exponential(size=(len(unigrams), states))
        initial = np.full(states, 1 / states)
        arrays = (initial, transitions, emissions / emissions.sum(0))
        return cls(*(each.astype(dtype) for each in arrays), has_start)

    @property
    def title(self) -> str:
        return f"hidden Markov model, {len(self.initial)} states"

    @property
    def size(self) -> tuple[int, str]:
        return sum(each.size for each in (self.initial, self.transitions, self.emissions)), "parameters"

    def log_probs(self, tokens: np.ndarray, begins: np.ndarray) -> np.ndarray:
        side = _SideBySide.of(tokens, begins, self.has_start)
        scales = self._forward(side, self.emissions[side.tokens])[1]
        result = np.zeros(len(tokens))
        with np.errstate(divide="ignore"):  # of what is impossible
            result[side.index] = np.log(scales)
        result[begins[:-1][np.diff(begins) > 0]] = 0.0
        return result

    def begin(self) -> State:
        return self.has_start, self.initial.astype(np.float64)

    def advance(self, state: State, token: int) -> State:
        is_start, states = state
        if is_start:
            return False, states
        behind = states * self.emissions[token]
        return False, behind / behind.sum() @ self.transitions

    def next_probabilities(self, state: State) -> np.ndarray:
        return self.emissions.astype(np.float64) @ state[1]

    def settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "states": len(self.initial), "has_start": self.has_start}

    def arrays(self) -> Arrays:
        return {"initial": self.initial, "transitions": self.transitions, "emissions": self.emissions}

    @classmethod
    def from_saved(cls, settings: dict[str, Any], arrays: Arrays) -> "HiddenMarkovModel":
        states, vocab_size = settings["states"], settings["vocab_size"]
        shapes = {"initial": (states,), "transitions": (states, states), "emissions": (vocab_size, states)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is {list(arrays[name].shape)}, where {list(shape)} is needed")
        return cls(*(arrays[name] for name in shapes), settings["has_start"])

    def expect(self, tokens: np.ndarray, begins: np.ndarray) -> "Expectations":
        """What the model thinks happened in these documents (the E-step)."""
        side = _SideBySide.of(tokens, begins, self.has_start)
        emitted = self.emissions[side.tokens]
        forward, scales = self._forward(side, emitted)
        emitted /= scales[:, None]
        backward = np.ones_like(forward)
        for place in reversed(range(1, len(side.widths))):
            here, before = side.rows(place), side.rows(place - 1, side.widths[place])
            emitted[here] *= backward[here]
            np.matmul(emitted[here], self.transitions.T, out=backward[before])
        moves = self.transitions * (forward[side.before].T @ emitted[side.widths[0] :])
        states = np.multiply(forward, backward, out=forward)
        size = (self.vocab_size, len(side.tokens))
        ones = sparse.csr_matrix((np.ones(size[1], dtype=states.dtype), (side.tokens, np.arange(size[1]))), shape=size)
        first = states[side.rows(0)].sum(0)
        return Expectations(float(np.log(scales, dtype=np.float64).sum()), first, moves, ones @ states, size[1])

    def _forward(self, side: "_SideBySide", emitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The probability of each state given all tokens up to its own [tokens, states], and that of each token given
        those before it [tokens].

        Args:
            emitted: probability of each token in each state [tokens, states].
        """
        states, scales = np.empty_like(emitted), np.empty(len(emitted), dtype=emitted.dtype)
        for place, width in enumerate(side.widths):
            here = side.rows(place)
            expected = states[side.rows(place - 1, width)] @ self.transitions if place else self.initial
            joint = emitted[here] * expected
            scales[here] = joint.sum(1)
            states[here] = joint / scales[here, None]
        return states, scales


@dataclass
class Expectations:
    """What is expected to have happened in some documents: the logarithm of their likelihood in nats, how often each
    state came first [states], each followed each [states, states], and emitted each token [vocabulary, states], and how
    many tokens they have."""

    log_likelihood: float
    first: np.ndarray
    moves: np.ndarray
    emissions: np.ndarray
    tokens: int

    def __add__(self, other: "Expectations") -> "Expectations":
        return Expectations(*(one + another for one, another in zip(vars(self).values(), vars(other).values())))

    def maximize(self, unigrams: np.ndarray, has_start: bool) -> HiddenMarkovModel:
        """The model that makes what is expected the likeliest, beside its prior (the M-step)."""
        share, dtype = LEFT / len(self.first), self.emissions.dtype
        initial, moves = self.first.astype(np.float64) + share, self.moves.astype(np.float64) + share
        emissions = self.emissions + EMITTED * unigrams[:, None]
        arrays = initial / initial.sum(), moves / moves.sum(1, keepdims=True), emissions / emissions.sum(0)
        return HiddenMarkovModel(*(each.astype(dtype) for each in arrays), has_start)


def learn(
    read: Callable[[], Iterator[Block]],
    states: int,
    iterations: int,
    vocab_size: int,
    has_start: bool,
    seed: int = 0,
    watch: Callable[[int, float], None] = lambda number, loss: None,
) -> HiddenMarkovModel:
    """Learn a model of documents.

    Args:
        read: yields blocks of documents, each time it is called all of them.
        watch: is told the number of each iteration, and the loss before it in nats per token.
    """
    unigrams = unigrams_of(read, vocab_size)
    model = HiddenMarkovModel.random(states, unigrams, has_start, seed)
    for number in range(1, iterations + 1):
        found = None
        for tokens, begins in read():
            of_block = model.expect(tokens, begins)
            found = of_block if found is None else found + of_block
        watch(number, -found.log_likelihood / found.tokens)
        model = found.maximize(unigrams, has_start)
    return model


def unigrams_of(read: Callable[[], Iterator[Block]], vocab_size: int) -> np.ndarray:
    """How likely each token is in the text as a whole [vocabulary]."""
    counts = np.full(vocab_size, UNSEEN)
    for tokens, _ in read():
        counts += np.bincount(tokens, minlength=vocab_size)
    return counts / counts.sum()


@dataclass(frozen=True)
class _SideBySide:
    """Documents side by side, the longest first: all their first tokens, then all their second ones ...

    Attributes:
        index: where each token stands in the text [tokens].
        tokens: their ids [tokens].
        widths: how many documents have each place [places].
        before: of each token but the first ones, the row of the one before it.
    """

    index: np.ndarray
    tokens: np.ndarray
    widths: list[int]
    firsts: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, tokens: np.ndarray, begins: np.ndarray, has_start: bool) -> "_SideBySide":
        lengths, places = np.diff(begins), places_of(begins)
        ranks = np.empty(len(lengths), dtype=np.int64)
        ranks[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths))
        kept = np.flatnonzero(places >= has_start)
        places, ranks = places[kept] - has_start, np.repeat(ranks, lengths)[kept]
        order = np.lexsort((ranks, places))
        widths = np.bincount(places)
        firsts = np.concatenate(([0], np.cumsum(widths)))
        # a document keeps its rank from place to place
        before = (firsts[places - 1] + ranks)[order][widths[0] if len(widths) else 0 :]
        return cls(kept[order], tokens[kept[order]], widths.tolist(), firsts, before)

    def rows(self, place: int, width: int | None = None) -> slice:
        """The rows of a place, of the first `width` documents."""
        first = int(self.firsts[place])
        return slice(first, first + (self.widths[place] if width is None else width))
