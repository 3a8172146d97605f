"""Text infilling: a text is written again from one in which masks stand for spans and sentences changed places."""

from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.pretraining.datasets.denoising.infilling import InfillArguments, InfillDenoiser
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser
from weft.recipes.pretraining.objectives.text_to_text import TextToTextObjective
from weft.tokenizer.special_tokens import add_mask_token


class InfillObjective(TextToTextObjective):
    """Masks stand for spans, sentences change places (BART, https://huggingface.co/papers/1910.13461)."""

    summary = (
        "A text-to-text model that restores a text, to be fine-tuned. Trained with Weft; the code it needs is in this "
        "folder."
    )
    arguments = (InfillArguments,)

    def __init__(self, infill: InfillArguments) -> None:
        super().__init__()
        self.infill, self.with_sentences = infill, infill.permute_sentences

    def check(self, parsed: Parsed) -> None:
        self.infill.check()
        super().check(parsed)
        if self.with_sentences and parsed[DataArguments].segmenter == "none" and "segmenter" in parsed.given:
            raise RecipeError(
                "segmenter none keeps no boundaries, which permuting sentences needs: give characters, jieba or "
                "module:function, leave it out, or give --permute_sentences false."
            )

    def add_tokens(self, tokenizer: Tokenizer) -> None:
        add_mask_token(tokenizer)

    def make_denoiser(self, tokenizer: Tokenizer) -> Denoiser:
        infill = self.infill
        return InfillDenoiser.of(tokenizer, infill.infill_rate, infill.mean_infill_length, infill.permute_sentences)

    def describe(self) -> str:
        rate, length = self.infill.infill_rate, self.infill.mean_infill_length
        permuted = ", sentences permuted" if self.infill.permute_sentences else ""
        return f"masks for {rate:.0%} of the tokens, in spans of {length:g} on average{permuted}"


OBJECTIVES = {"infill": InfillObjective}
