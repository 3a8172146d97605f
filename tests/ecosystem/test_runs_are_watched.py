"""A run's curves go to tensorboard, trackio and mlflow, as `--report_to` asks: the losses that its history has."""

import json
import sqlite3
from pathlib import Path

import mlflow
import pytest
from helpers import runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_sentences(tmp_path_factory.mktemp("text") / "text.txt")


def run(text: Path, folder: Path, to: str) -> list[float]:
    """Train for four steps, each of which is reported; its losses."""
    options = {"max_steps": 4, "logging_steps": 1, "report_to": to, "output_dir": folder / "run"}
    runs.finish(runs.launch(train_files=text, vocab_size=300, **options))
    found = [entry["loss"] for entry in runs.history(folder / "run") if "loss" in entry]
    assert len(found) == 4
    return found


def test_tensorboard(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    expected = run(text, tmp_path, "tensorboard")
    board = EventAccumulator(str(next((tmp_path / "board").glob("**/events*")).parent)).Reload()
    assert [event.value for event in board.Scalars("train/loss")] == pytest.approx(expected)


def test_mlflow(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "weft")
    expected = run(text, tmp_path, "mlflow")
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("weft").experiment_id])
    values = [metric.value for metric in client.get_metric_history(found.info.run_id, "loss")]
    assert values == pytest.approx(expected)


def test_trackio(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    expected = run(text, tmp_path, "trackio")
    (base,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(base) as connection:
        found = [json.loads(row[0]) for row in connection.execute("select metrics from metrics order by step")]
    assert [row["train/loss"] for row in found if "train/loss" in row] == pytest.approx(expected)
