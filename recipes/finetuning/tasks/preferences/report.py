"""What the report shows of preferences: rewards, and lengths of given and of written answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.markdown import table
from weft.recipes.finetuning.report_files import place_of, write_csv
from weft.recipes.finetuning.task import Items
from weft.recipes.finetuning.tasks.preferences.reading import Preference, told
from weft.recipes.training.figures import panels

SHOWN, LONGEST_CELL = 5, 160
REWARDS = ("prompt", "chosen", "rejected", "reward_chosen", "reward_rejected", "margin")


@dataclass(frozen=True)
class WrittenAnswer:
    """What was written greedily for the prompt of an example.

    Attributes:
        text_before: what the model as it started wrote; None where that is not kept.
    """

    example: int
    text: str
    text_before: str | None = None


@dataclass
class PreferenceReport:
    """The rewards of a split's answers, and what was written for some of its prompts.

    Attributes:
        rewards, tokens: [items, answers].
    """

    examples: Sequence[Preference]
    items: Items
    rewards: np.ndarray
    tokens: np.ndarray
    written: Sequence[WrittenAnswer]
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        self.used = [self.examples[item.example] for item in self.items]
        self.is_pair = self.rewards.shape[1] == 2
        self.wanted = np.array([bool(item.target) for item in self.items])

    def write(self, folder: Path, split: str, most: int) -> str:
        """Write predictions.csv, answers.csv and preferences.png; returns Markdown.

        Args:
            most: tokens that an answer was written with at most.
        """
        place = place_of(folder, split)
        self._write_rewards(folder / "predictions.csv")
        self._plot(folder / "preferences.png")
        parts = [f"![Rewards of the answers, and their lengths]({place}preferences.png)", self._lengths(most)]
        parts += [self._by_length()] if self.is_pair else []
        files = f"`{place}predictions.csv` has the rewards of all answers"
        if self.written:
            answers = [(self.examples[each.example], each) for each in self.written]
            rows = [(one.where, told(one.prompt), each.text, each.text_before) for one, each in answers]
            write_csv(folder / "answers.csv", ("example", "prompt", "written", "written_before"), rows)
            cells = [(prompt, before or "-", text or "(nothing)") for _, prompt, text, before in rows[:SHOWN]]
            parts.append(table(("prompt", "before", "this model"), cells, LONGEST_CELL))
            files += f", `{place}answers.csv` what was written"
        return "\n\n".join([*parts, f"{files}."])

    def _lengths(self, most: int) -> str:
        """How long the given answers are, and those that are written: preferences often make them longer."""
        said = [[told(answer) for answer in one.answers] for one in self.used]
        if self.is_pair:
            texts = dict(zip(("chosen answers", "rejected answers"), zip(*said)))
        else:
            kinds = {"wanted answers": self.wanted, "unwanted answers": ~self.wanted}
            texts = {name: [said[place][0] for place in np.flatnonzero(of)] for name, of in kinds.items()}
        texts["written by this model"] = [each.text for each in self.written]
        texts["written by the model before"] = [e.text_before for e in self.written if e.text_before is not None]
        rows = []
        for name, of in texts.items():
            found = [len(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids) for text in of]
            rows += [(name, f"{len(of):,}", f"{np.mean(found):.1f}", f"{np.median(found):.0f}")] if found else []
        note = f"\n\nWritten greedily, with {most} tokens at most." if self.written else ""
        return table(("", "answers", "tokens in the mean", "median"), rows) + note

    def _by_length(self) -> str:
        """Whether the model prefers what is long: its accuracy by which of both answers is longer."""
        right, surplus = self.rewards[:, 0] > self.rewards[:, 1], self.tokens[:, 0] - self.tokens[:, 1]
        cases = {"longer": surplus > 0, "as long": surplus == 0, "shorter": surplus < 0}
        rows = [(name, f"{of.sum():,}", f"{right[of].mean():.4f}") for name, of in cases.items() if of.any()]
        return table(("the chosen answer is", "pairs", "accuracy"), rows)

    def _write_rewards(self, path: Path) -> None:
        rows: list[list[Any]] = []
        for example, reward, tokens in zip(self.used, self.rewards.tolist(), self.tokens.tolist()):
            row = [example.where, told(example.prompt), *map(told, example.answers)]
            row += [] if self.is_pair else [int(bool(example.wanted))]
            margin = [reward[0] - reward[1]] if self.is_pair else []
            rows.append([*row, *(f"{number:.6f}" for number in (*reward, *margin)), *tokens])
        header = (*REWARDS, "tokens_chosen", "tokens_rejected")
        write_csv(
            path, ("example", *(header if self.is_pair else ("prompt", "answer", "wanted", "reward", "tokens"))), rows
        )

    def _plot(self, path: Path) -> None:
        """A histogram of the margins, or of both kinds' rewards, and the same over the lengths of the answers."""
        with panels(path, (9, 3.8), 2) as (bars, points):
            dots = {"s": 10, "alpha": min(1.0, max(0.15, 300 / len(self.rewards))), "linewidths": 0}
            grey = {"color": "grey", "linestyle": "--", "linewidth": 1}
            if self.is_pair:
                margins, surplus = self.rewards @ (1, -1), self.tokens @ (1, -1)
                bars.hist(margins, bins=30, color="tab:blue")
                bars.axvline(0, **grey)
                bars.set(xlabel="reward of the chosen less that of the rejected answer", ylabel="pairs")
                points.scatter(surplus, margins, color="tab:blue", **dots)
                points.axhline(0, **grey)
                between = "tokens of the chosen less those of the rejected answer"
                points.set(xlabel=between, ylabel="difference in reward")
                return
            edges = np.histogram_bin_edges(self.rewards, bins=30)
            for of, name, colour in ((self.wanted, "wanted", "tab:blue"), (~self.wanted, "unwanted", "tab:orange")):
                bars.hist(self.rewards[of, 0], bins=edges, color=colour, alpha=0.6, label=name)
                points.scatter(self.tokens[of, 0], self.rewards[of, 0], color=colour, label=name, **dots)
            bars.set(xlabel="reward", ylabel="answers")
            points.set(xlabel="tokens of the answer", ylabel="reward")
            bars.legend()
