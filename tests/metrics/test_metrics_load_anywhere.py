"""Each metric gives the same scores however it is loaded, and whether its examples come at once or in batches."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers.elsewhere import BLOCK_THE_PACKAGE
from helpers.metric_cases import CASES
from helpers.metrics import METRICS_FOLDER, score

from weft.recipes.metrics import METRICS, load_metric
from weft.recipes.metrics.answers import UNSPACED
from weft.tokenizer import pre_tokenizers

EMPTY = ([], [], {})


@pytest.mark.parametrize("name", METRICS)
def test_batches_give_the_scores_of_all_at_once(name):
    for predictions, references, options in CASES[name][-3:]:
        metric = load_metric(name)
        for i in range(0, len(references), 7):
            metric.add_batch(predictions=predictions[i : i + 7], references=references[i : i + 7])
        assert metric.compute(**options) == score(name, (predictions, references, options))
        assert metric.compute(predictions=[], references=[], **options).get("undefined")  # nothing is left over


IN_ANOTHER_PROCESS = """
import json, socket, warnings

def refuse(*arguments, **options):
    raise AssertionError("a metric asked for the network")

socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["transformers"] = None  # evaluate would load it, which takes seconds; no metric needs it
import evaluate
del sys.modules["transformers"]

folder, given, found = sys.argv[1:]
results = {}
for name, cases in json.load(open(given, encoding="utf-8")).items():
    metric = evaluate.load(f"{folder}/{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results[name] = [metric.compute(predictions=p, references=r, **options) for p, r, options in cases]
json.dump(results, open(found, "w", encoding="utf-8"), allow_nan=False)
"""


@pytest.mark.parametrize("is_copied", [False, True])
def test_evaluate_loads_each_without_network_and_without_the_package(tmp_path, is_copied):
    """As a recipe is launched: its folder comes first on the path, where `metrics` and `seqeval` must not be found."""
    cases = {name: [*some[:: max(1, len(some) // 4)], EMPTY] for name, some in CASES.items()}
    given, found = tmp_path / "given.json", tmp_path / "found.json"
    given.write_text(json.dumps(cases), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment["PYTHONPATH"] = str(METRICS_FOLDER.parent)
    command = [sys.executable, "-c", BLOCK_THE_PACKAGE + IN_ANOTHER_PROCESS]
    folder = METRICS_FOLDER
    if is_copied:
        folder = tmp_path / "copied"
        for name in METRICS:
            shutil.copytree(METRICS_FOLDER / name, folder / name)
    command += [str(folder), str(given), str(found)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(found.read_text(encoding="utf-8"))
    for name, some in cases.items():
        assert results[name] == [score(name, case) for case in some], name


def test_scripts_without_blanks_are_those_of_the_tokenizer():
    assert UNSPACED == pre_tokenizers.UNSPACED


def test_what_metrics_share_is_the_same_wherever_it_is_linked():
    """evaluate takes along the files of a metric's own folder alone."""
    shared = [path for path in METRICS_FOLDER.glob("*.py") if path.name != "__init__.py"]
    assert {path.name for path in shared} == {"answers.py", "correlations.py", "undefined.py"}
    for path in shared:
        linked = list(METRICS_FOLDER.glob(f"*/{path.name}"))
        assert len(linked) > 1
        assert {one.read_text(encoding="utf-8") for one in linked} == {path.read_text(encoding="utf-8")}
