"""What only the user can say of a published model: its licence, the language of its texts, what is published beside."""

import difflib
import re

from weft.recipes.common.errors import RecipeError

LICENSE_HELP = (
    "licence of the published model, by its identifier on the Hub, e.g. apache-2.0, for the model card; without it, "
    "that which the card of the model trained on names, and none where it names none"
)
LANGUAGE_HELP = (
    "language of the texts for the model card, as an ISO 639 code, several with commas between them, e.g. de or en,de; "
    "without it, that of a known data set or of a script that one language has"
)
REVISIONS = ("false", "true", "words")  # whether checkpoints are published too, and by what they are named
USUAL_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail", "unlicense", "other"),
)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")


def check_card_fields(license: str | None, language: str | None) -> None:
    """Refuse what the Hub would not take in the head of a card; raises RecipeError."""
    if license is not None and not _LICENSE.fullmatch(license):
        near = difflib.get_close_matches(license.strip().lower().replace(" ", "-"), USUAL_LICENSES, n=1)
        advice = f"did you mean {near[0]!r}?" if near else "give one such as apache-2.0, mit or cc-by-sa-4.0."
        raise RecipeError(f"license is {license!r}, which is no identifier of the Hub: {advice}")
    for code in languages(language) or ():
        if not _LANGUAGE.fullmatch(code):
            raise RecipeError(
                f"language is {language!r}: give ISO 639 codes in small letters, such as de, or en,de for several."
            )


def languages(field: str | None) -> list[str] | None:
    """The codes of a field; None where it was not given."""
    return None if field is None else [code.strip() for code in field.split(",")]
