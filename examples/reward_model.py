"""Train a reward model on preferences with TRL, from any Weft checkpoint (pip install 'trl>=1.16').

    python examples/reward_model.py runs/pretrain_mlm pairs.jsonl runs/reward

Each row of pairs.jsonl has a prompt, a chosen and a rejected answer, as texts or as messages (then the tokenizer needs
a chat template). A tenth of them is held out: the accuracy is how often the chosen one gets the higher score. The model
is a WeftForSequenceClassification with one output, the score of a text, and loads as any classifier does.
"""

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL would tell its makers of the run

import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer


def main(argv: Sequence[str] | None = None) -> float:
    """Train, save, score a held-out pair, and return the held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id to start from")
    parser.add_argument("train_file", help="JSON lines of preferences")
    parser.add_argument("output_dir", help="folder for the reward model")
    parser.add_argument("--max_steps", type=int, default=200)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_length", type=int, default=512)
    fields = parser.parse_args(argv)

    data = load_dataset("json", data_files=fields.train_file, split="train").train_test_split(0.1, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(fields.model, trust_remote_code=True)
    # One output, and no dropout beside what the checkpoint has: scores of a pair are compared with each other.
    model = AutoModelForSequenceClassification.from_pretrained(
        fields.model, num_labels=1, dtype=torch.float32, trust_remote_code=True
    )
    on_gpu = torch.cuda.is_available()
    config = RewardConfig(
        f"{fields.output_dir}/training",
        max_steps=fields.max_steps,
        learning_rate=fields.learning_rate,
        per_device_train_batch_size=fields.batch_size,
        per_device_eval_batch_size=fields.batch_size,
        max_length=fields.max_length,
        save_strategy="no",
        report_to="none",
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
    )
    trainer = RewardTrainer(
        model, args=config, train_dataset=data["train"], eval_dataset=data["test"], processing_class=tokenizer
    )
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    trainer.save_model(fields.output_dir)
    print(f"held-out accuracy {accuracy:.4f} on {len(data['test'])} pairs; the model is in {fields.output_dir}")

    # How the reward model is used: a score for each text, to be compared with those of other answers to the prompt.
    scorer = AutoModelForSequenceClassification.from_pretrained(fields.output_dir, trust_remote_code=True).eval()
    row = data["test"][0]
    for kind in ("chosen", "rejected"):
        if isinstance(row[kind], str):
            text = f"{row['prompt']}{row[kind]}{tokenizer.eos_token}"
        else:
            text = tokenizer.apply_chat_template([*(row.get("prompt") or []), *row[kind]], tokenize=False)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=isinstance(row[kind], str))
        with torch.no_grad():
            print(f"{kind:9} {scorer(**inputs).logits[0, 0].item():8.3f}  {row[kind]!r:.80}")
    return accuracy


if __name__ == "__main__":
    main()
