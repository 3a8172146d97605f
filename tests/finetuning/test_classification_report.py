"""The files that a finished classifier leaves: predictions, mistakes, plots, thresholds and GLUE's submission."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from weft.recipes.finetuning import plots
from weft.recipes.finetuning.curve import plot_seeds
from weft.recipes.finetuning.tasks.text_classification.glue_submission import write_glue_submission
from weft.recipes.finetuning.tasks.text_classification.report import Answers, write, write_predictions
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training import figures
from weft.recipes.training.figures import titled

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def answers(problem, gold, probabilities, names=("no", "yes", "a,b"), thresholds=(0.5, 0.2, 0.5), columns=("text",)):
    probabilities = np.array(probabilities, dtype=float)
    texts = [tuple(f'{column} "{number}",\n漢字' for column in columns) for number in range(len(gold))]
    return Answers(problem, columns, names, texts, gold, probabilities, np.array(thresholds), "|")


def rows(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


ONE = answers(
    SINGLE, ["no", "yes", "a,b", "no"], [[0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]]
)


def test_predictions_have_the_names_of_the_user_and_a_probability_for_each(tmp_path):
    text = write(tmp_path, "validation", ONE)
    found = rows(tmp_path / "predictions.csv")
    assert list(found[0]) == ["text", "gold", "predicted", *(f"probability of {name}" for name in ("no", "yes", "a,b"))]
    assert [(row["gold"], row["predicted"]) for row in found] == [
        ("no", "no"),
        ("yes", "no"),
        ("a,b", "a,b"),
        ("no", "yes"),
    ]
    assert found[3]["probability of yes"] == "0.800000"
    assert found[2]["text"] == 'text "2",\n漢字'
    assert "holds all 4 validation examples" in text


def test_mistakes_are_the_wrong_ones_the_most_confident_first(tmp_path):
    text = write(tmp_path, "validation", ONE)
    assert [row["text"][6] for row in rows(tmp_path / "mistakes.csv")] == ["1", "3"]
    assert "the 2 mistakes, the most confident first" in text


def test_the_table_of_classes_is_that_of_scikit_learn(tmp_path):
    draw = np.random.default_rng(0)
    gold, probabilities = draw.integers(0, 3, 50), draw.dirichlet([1, 1, 1], 50)
    names = ("no", "y|s", "a,b")
    found = answers(SINGLE, [names[number] for number in gold], probabilities, names)
    text = write(tmp_path, "validation", found)
    for number, name in enumerate(("no", "y\\|s", "a,b")):
        table = precision_recall_fscore_support(gold, probabilities.argmax(1), labels=[0, 1, 2])
        precision, recall, f1, support = (column[number] for column in table)
        assert f"| {number} | {name} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {support} |" in text


def test_several_labels_hold_from_their_thresholds_on(tmp_path):
    gold = [("no",), (), ("yes", "a,b")]
    found = answers(MULTI, gold, [[0.6, 0.1, 0.1], [0.4, 0.3, 0.1], [0.1, 0.9, 0.7]])
    assert found.predicted == [("no",), ("yes",), ("yes", "a,b")]
    text = write(tmp_path, "validation", found)
    assert [row["predicted"] for row in rows(tmp_path / "predictions.csv")] == ["no", "yes", "yes|a,b"]
    assert [row["gold"] for row in rows(tmp_path / "mistakes.csv")] == [""]
    thresholds = json.loads((tmp_path / "thresholds.json").read_text())
    assert thresholds == {"tuned_on": "validation", "thresholds": {"no": 0.5, "yes": 0.2, "a,b": 0.5}}
    assert "a little too good" in text
    assert "| 1 | yes | 0.500 | 1.000 | 0.667 | 1 |" in text
    assert (tmp_path / "label_scores.png").is_file()
    assert not (tmp_path / "confusion_matrix.png").exists()


def test_a_regression_shows_numbers_and_the_largest_errors_first(tmp_path):
    found = answers(REGRESSION, [1.0, 2.5, 3.0], [[1.0], [2.0], [5.0]], names=(), thresholds=(), columns=("a", "b"))
    text = write(tmp_path, "validation", found)
    assert tuple(rows(tmp_path / "predictions.csv")[0]) == ("a", "b", "gold", "predicted")
    assert [row["predicted"] for row in rows(tmp_path / "mistakes.csv")] == ["5", "2"]
    assert "![predicted and right numbers](scatter.png)" in text


def test_the_report_of_the_test_split_points_into_its_own_folder(tmp_path):
    (tmp_path / "test").mkdir()
    text = write(tmp_path / "test", "test", ONE)
    for part in text.split("](")[1:]:
        assert (tmp_path / part.split(")")[0]).is_file()
    assert "`test/predictions.csv`" in text


def test_examples_without_labels_have_no_gold_column(tmp_path):
    write_predictions(tmp_path / "p.csv", answers(SINGLE, [None, None], [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]))
    assert [row["predicted"] for row in rows(tmp_path / "p.csv")] == ["no", "a,b"]
    assert "gold" not in rows(tmp_path / "p.csv")[0]


@pytest.mark.parametrize("classes", [2, 12, 45])
def test_confusion_matrices_stay_within_a_page(tmp_path, classes):
    counts = np.random.default_rng(0).poisson(3, (classes, classes))
    plots.plot_confusion(tmp_path / "c.png", [f"label number {n}" for n in range(classes)], counts)
    with Image.open(tmp_path / "c.png") as image:
        assert 400 < image.width < 2400 and 400 < image.height < 2400


def test_names_that_no_font_can_draw_are_shown_as_numbers(monkeypatch):
    monkeypatch.setattr(plots, "_FONTS", ("DejaVu Sans",))
    assert plots._drawable(["neg", "pos"], [0, 1]) == (["neg", "pos"], "DejaVu Sans", False)
    assert plots._drawable(["好", "坏"], [4, 7]) == (["4", "7"], "DejaVu Sans", True)
    assert plots._drawable(["costs $5", "x" * 40], [0, 1])[0] == ["costs \\$5", "x" * 23 + "…"]


def test_plots_are_closed(tmp_path):
    from matplotlib import pyplot

    write(tmp_path, "validation", ONE)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("predicted", "official", "lines"),
    [
        (["pos", "neg"], ("neg", "pos"), ["7\t1", "9\t0"]),
        (["entailment", "not_entailment"], None, ["7\tentailment", "9\tnot_entailment"]),
        ([5.3, -0.2], None, ["7\t5.000", "9\t0.000"]),
        ([3.14159, 2.0], None, ["7\t3.142", "9\t2.000"]),
    ],
)
def test_glue_takes_an_index_and_a_prediction(tmp_path, predicted, official, lines):
    write_glue_submission(tmp_path / "X.tsv", ["7", "9"], predicted, official)
    assert (tmp_path / "X.tsv").read_text().splitlines() == ["index\tprediction", *lines]


def drawn(monkeypatch) -> list:
    """The figures that are saved from now on."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_every_picture_says_whose_it_is(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    with titled("reviews, validation: accuracy 0.5000"):
        write(tmp_path, "validation", ONE)
    assert len(saved) == 2
    assert {figure.get_suptitle() for figure in saved} == {"reviews, validation: accuracy 0.5000"}
    write(tmp_path, "validation", ONE)
    assert {figure.get_suptitle() for figure in saved[2:]} == {""}


def test_a_confusion_matrix_shows_zeros_too(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    for classes in (2, 20):
        plots.plot_confusion(tmp_path / "c.png", list(map(str, range(classes))), np.eye(classes, dtype=int) * 3)
        texts = [text.get_text() for text in saved[-1].axes[0].texts]
        assert len(texts) == classes**2 and texts.count("0") == classes**2 - classes


def test_bars_of_few_examples_are_pale_and_all_bars_have_their_number(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    confidence = np.array([0.55] * 2 + [0.97] * 200)
    plots.plot_calibration(tmp_path / "c.png", confidence, np.ones(202), 0.1)
    top, bottom = saved[0].axes
    few, many = (bar.get_facecolor()[3] for bar in top.patches)
    assert 0 < few < many / 2 and [text.get_text() for text in bottom.texts] == ["2", "200"]


def test_scores_are_drawn_from_zero(tmp_path, monkeypatch):
    saved = drawn(monkeypatch)
    plots.plot_scores(tmp_path / "s.png", ["a", "b"], [0.9, 0.95])
    assert saved[-1].axes[0].get_xlim()[0] == 0
    assert [text.get_text() for text in saved[-1].axes[0].texts] == ["0.90", "0.95"]
    log = [{"step": n, "eval_loss": 1.0, "eval_accuracy": 0.9, "eval_mse": 5.0} for n in (1, 2)]
    for metric, limits in (("accuracy", (0, 1)), ("mse", None)):
        result = SeedResult(1, {metric: log[0][f"eval_{metric}"]}, 1, 2, 1.0, None, log)
        plot_seeds([result], metric, tmp_path / "curve.png", limits, baseline=None)
        assert (saved[-1].axes[1].get_ylim()[0] == 0) == (limits is not None)


def test_a_title_without_a_font_has_dots_and_no_boxes(monkeypatch):
    monkeypatch.setattr(figures.font_with, "__defaults__", (("DejaVu Sans",),))
    monkeypatch.setattr(figures, "FONTS", ("DejaVu Sans",))
    assert figures.drawable("情感 run: f1 0.5") == ("… run: f1 0.5", "DejaVu Sans")
    assert figures.drawable("run: f1 0.5") == ("run: f1 0.5", "DejaVu Sans")
