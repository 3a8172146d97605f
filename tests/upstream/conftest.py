"""transformers' own test mixins, run against Weft: what a stock Llama passes, Weft has to pass.

    pip install -e ".[dev,upstream]"
    pytest tests/upstream -o addopts=""                           # Weft
    pytest tests/upstream/stock_models.py -o addopts=""           # the same tests, stock classes: the yardstick

The first run fetches the source distribution of the installed transformers from the package index (`upstream.py`).
It has the mixins of models, configs, training, tensor parallelism and FSDP. Those of generation, export and pipelines
are only in transformers' git repository; with a checkout of the installed version they run as well:

    TRANSFORMERS_CHECKOUT=path/to/transformers pytest tests/upstream -o addopts=""
"""

import pytest
import transformers
from upstream import make_importable

import weft
from weft.configuration_weft import AUTO_MAP

make_importable()
collect_ignore = ["stand_ins"]

# The mixins look classes up by name in transformers' tables: a test of, say, losses finds none to test, and passes,
# for a class that is in no table. Registering with an Auto class does not enter the name.
for auto_class, reference in AUTO_MAP.items():
    if auto_class != "AutoConfig":
        names = getattr(transformers, auto_class)._model_mapping._model_mapping
        names[weft.WeftConfig.model_type] = reference.split(".")[-1].replace("WeftAuto", "WeftFor")


def pytest_configure(config: pytest.Config) -> None:
    """The mixins bear marks that only transformers' own settings declare."""
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnknownMarkWarning")
