"""lm_eval's own command scores a Weft folder as Weft's own scorer does, in a process without the package."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

TASK = """\
task: local_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: FILE
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""


def test_the_command_scores_a_folder(
    folders: dict[str, Path], tokenizer: Any, texts: list[str], tmp_path: Path
) -> None:
    """Each question is a text's beginning, with its own end and two others' to choose from."""
    rows = [
        {"question": text[:20], "choices": [texts[n - shift][20:40] for shift in (0, 1, 2)], "answer": 0}
        for n, text in enumerate(texts[:12])
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "one.yaml").write_text(TASK.replace("FILE", str(tmp_path / "rows.jsonl")))
    model = f"pretrained={folders['causal']},trust_remote_code=True"
    command = [
        *(str(Path(sys.executable).parent / "lm_eval"), "run", "--model", "hf", "--model_args", model),
        "--device",
        "cpu",
    ]
    command += ["--tasks", "local_choice", "--include_path", str(tmp_path / "tasks"), "--batch_size", "4"]
    command += ["--output_path", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    written = next(tmp_path.glob("**/*out*.json"))
    found = json.loads(written.read_text())["results"]["local_choice"]["acc,none"]

    scorer, right = AutoModelForCausalLM.from_pretrained(folders["causal"]).eval(), 0
    for row in rows:
        scores = []
        for choice in row["choices"]:
            context = tokenizer(row["question"])["input_ids"]
            whole = torch.tensor([tokenizer(f"{row['question']} {choice}")["input_ids"]])
            with torch.no_grad():
                nats = scorer(whole).logits[0, :-1].log_softmax(-1).gather(-1, whole[0, 1:, None])[:, 0]
            scores.append(nats[len(context) - 1 :].sum().item())
        right += scores.index(max(scores)) == row["answer"]
    assert found == right / len(rows)
