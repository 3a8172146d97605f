"""Every objective of pretrain_mlm makes, of English and of Chinese text, a folder that loads anywhere in every role."""

import json

import matplotlib.image
import pytest
from helpers import runs
from helpers.cards import head_of, scores_of
from helpers.elsewhere import succeed

FIELDS = {"max_steps": 9, "save_steps": 9, "eval_steps": 3, "learning_rate": 0.01}
OBJECTIVES = {
    "masked": {"masking": "word"},
    "hybrid": {"masking": "span", "causal_share": 0.5},
    "next-sentence": {"masking": "token"},
    "sentence-order": {"masking": "ngram", "mask_rate": 0.15},
}
LANGUAGES = ("english", "chinese")
MASKED_TEXT = {"english": "The cat<mask> the dog.", "chinese": "我们去<mask>园。"}
POOLER = ["pooler.dense.bias", "pooler.dense.weight", "seq_relationship.bias", "seq_relationship.weight"]

USE_EVERYWHERE = """
import json, pathlib
import transformers
from transformers import AutoConfig, AutoTokenizer, pipeline

found = {{}}
for folder in sorted(path for path in pathlib.Path({folder!r}).iterdir() if path.is_dir()):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    of_folder = found[folder.name] = {{"classes": {{}}}}
    of_folder["auto_map"] = sorted(AutoConfig.from_pretrained(folder, trust_remote_code=True).auto_map)
    for name in ("AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForPreTraining"):
        _, info = getattr(transformers, name).from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        of_folder["classes"][name] = [sorted(info["missing_keys"]), sorted(info["unexpected_keys"])]
    text = {text!r}["chinese" if folder.name.startswith("chinese") else "english"]
    of_folder["tokens"] = tokenizer(text).tokens()
    of_folder["types"] = tokenizer(text, text).get("token_type_ids")
    fills = pipeline("fill-mask", model=str(folder), trust_remote_code=True)(text)
    of_folder["fills"] = [fill["sequence"] for fill in fills]
    if "hybrid" in folder.name:
        generate = pipeline("text-generation", model=str(folder), trust_remote_code=True)
        of_folder["generated"] = generate("The cat", max_new_tokens=4)[0]["generated_text"]
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def finished(english, chinese, tmp_path_factory):
    """The folder of all runs, by language and objective; one of them begins with raw text."""
    folder = tmp_path_factory.mktemp("runs")
    for language, corpus in (("english", english), ("chinese", chinese)):
        for objective, fields in OBJECTIVES.items():
            data = {"data": corpus}
            if (language, objective) == ("chinese", "masked"):
                text = runs.write_sentences(folder / "text.txt", chinese=True)
                data = {"train_files": [text], "tokenizer_type": "unigram", "vocab_size": 300}
            output = folder / f"{language}-{objective}"
            runs.run_here(output_dir=output, objective=objective, **data, **FIELDS, **fields)
    return folder


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory):
    """What a process without the package makes of these folders."""
    code = USE_EVERYWHERE.format(folder=str(finished), text=MASKED_TEXT)
    printed = succeed(code, tmp_path_factory.mktemp("elsewhere"))
    return json.loads(printed.split("FOUND ", 1)[1])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns(finished, language, objective):
    losses = runs.losses(finished / f"{language}-{objective}")
    assert losses[-1] < losses[0] - 0.5, losses


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_finished_run_loads_in_every_role_without_the_package(elsewhere, language, objective):
    found = elsewhere[f"{language}-{objective}"]
    names = ["AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForPreTraining"]
    assert {"AutoConfig", *names} <= set(found["auto_map"])
    has_pairs = objective in ("next-sentence", "sentence-order")
    for name in names[:3]:
        assert found["classes"][name] == [[], POOLER if has_pairs else []]
    assert found["classes"][names[3]] == [[] if has_pairs else POOLER, []]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pipelines_fill_masks_and_the_hybrid_continues_text_too(elsewhere, language, objective):
    found = elsewhere[f"{language}-{objective}"]
    before, after = MASKED_TEXT[language].split("<mask>")
    assert len(found["fills"]) == 5
    assert all(text.startswith(before) and text.endswith(after) for text in found["fills"])
    assert found["tokens"][0] == "<s>" and found["tokens"].count("<mask>") == 1
    assert found["tokens"][-1] == "</s>"
    assert (found["types"] is not None) == (objective in ("next-sentence", "sentence-order"))
    if objective == "hybrid":
        assert found["generated"].startswith("The cat")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_metrics_curve_and_card_tell_of_every_part(finished, objective):
    folder = finished / f"english-{objective}"
    metrics = json.loads((folder / "metrics.json").read_text())
    card = (folder / "README.md").read_text()
    head = head_of(folder)
    assert (head.library_name, head.pipeline_tag) == ("transformers", "fill-mask")
    assert {("validation", "masked_loss"), ("validation", "masked_accuracy")} <= scores_of(head)
    said = ["masked accuracy", "masked: ", "filled: ", "| segmenter | characters |", "| vocab_size | 300 |"]
    loss = metrics["eval_masked_loss"]
    classes = ["AutoModelForMaskedLM"]
    if objective == "hybrid":
        said += ["causal loss", "bits per byte", "| causal_share | 0.5 |", "| span_success | 0.2 |"]
        loss = (loss + metrics["eval_causal_loss"]) / 2
        classes.append("AutoModelForCausalLM")
    elif objective != "masked":
        said += ["next sentence loss", "next sentence accuracy"]
        loss += metrics["eval_next_sentence_loss"]
        classes.append("AutoModelForPreTraining")
    assert metrics["eval_loss"] == pytest.approx(loss)
    for words in (*said, *(f"{name}.from_pretrained(" for name in classes)):
        assert words in card, words
    for idle in ("causal_steps", "span_success", "max_ngram"):
        assert (f"| {idle} |" in card) == (idle in {"hybrid": ("causal_steps", "span_success"),
                                                    "sentence-order": ("max_ngram",)}.get(objective, ()))  # fmt: skip
    # The parts of sentence pairs have different units, so each has a panel of its own.
    image = matplotlib.image.imread(folder / "curve.png")
    plain = matplotlib.image.imread(finished / "english-masked" / "curve.png")
    assert (image.shape[0] > plain.shape[0]) == (objective in ("next-sentence", "sentence-order"))


def test_a_corpus_serves_causal_and_masked_runs_alike(english, finished, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in english.rglob("*")}
    runs.run_here(data=english, output_dir=tmp_path / "causal", **FIELDS)
    assert before == {path: path.stat().st_mtime_ns for path in english.rglob("*")}
    ids = [json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
           for path in (tmp_path / "causal", finished / "english-masked")]  # fmt: skip
    assert ids[0] == ids[1]
