"""A classification task that every Python carries: which part of the standard library is a docstring from?"""

from weft.recipes.data.builtin_text import embedded_docstrings
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.validation_split import split_off

# Areas, and the top-level modules that make them up.
AREAS: dict[str, tuple[str, ...]] = {
    "asyncio": ("asyncio",),
    "email": ("email", "mailbox"),
    "idlelib": ("idlelib",),
    "importlib": ("importlib", "zipimport", "pkgutil"),
    "logging": ("logging",),
    "multiprocessing": ("multiprocessing", "concurrent", "threading"),
    "numbers": ("_pydecimal", "fractions", "statistics", "random"),
    "tkinter": ("tkinter", "turtle"),
    "unittest": ("unittest", "doctest"),
    "web": ("http", "urllib", "xmlrpc", "wsgiref", "smtplib", "imaplib"),
    "xml": ("xml",),
}
SHORTEST = 30  # characters: shorter docstrings say too little
FEWEST = 60  # docstrings of an area; some distributions leave parts of the library out
HELD_OUT, SEED = 0.15, 0


def docstring_records() -> dict[str, list[Record]]:
    """Records with the columns "text" and "label" of the splits train, validation and test.

    Texts are first paragraphs. One that stands in several places is taken once; one that stands in several areas is
    left out. Which ones are held out depends on nothing but the library itself.
    """
    area_of = {module: area for area, modules in AREAS.items() for module in modules}
    places: dict[str, tuple[str, str]] = {}
    for module, docstring in embedded_docstrings():
        area = area_of.get(module.partition(".")[0])
        text = docstring.strip().split("\n\n", 1)[0]  # the first paragraph says what the thing is
        if area is None or len(text) < SHORTEST:
            continue
        known = places.setdefault(text, (area, module))
        if known[0] != area:
            places[text] = ("", module)
    labels = [area for area, _ in places.values()]
    kept = [
        Record({"text": text, "label": area}, f"docstring of {module}")
        for text, (area, module) in places.items()
        if area and labels.count(area) >= FEWEST
    ]
    rest, test = _split(kept, HELD_OUT)
    train, validation = _split(rest, HELD_OUT / (1 - HELD_OUT))
    return {"train": train, "validation": validation, "test": test}


def _split(records: list[Record], fraction: float) -> tuple[list[Record], list[Record]]:
    stay, held_out = split_off(len(records), fraction, SEED, [record.values["label"] for record in records])
    return [records[index] for index in stay], [records[index] for index in held_out]
