# Every target sets up what it needs: a virtual environment in .venv, made once and again when the pins change; tests and
# style add their own packages to it.
# ARGS="..." goes to the recipe: make pretrain ARGS="--train_files my.txt --output_dir runs/mine"

PYTHON ?= python3
PROCESSES ?= 1
MODEL ?=
PROMPT ?=
QUERY ?=
TASK ?= pydoc
DATA ?=
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed
ECOSYSTEM := .venv-ecosystem/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
LAUNCH := $(BIN)/accelerate launch --num_processes $(PROCESSES) --num_machines 1 --mixed_precision no \
	--dynamo_backend no $(if $(filter-out 1,$(PROCESSES)),--multi_gpu)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev pretrain pretrain-mlm pretrain-diffusion pretrain-seq2seq pretrain-readings pretrain-replaced
.PHONY: finetune chat tokenizer data baselines generate search test test-upstream test-old test-ecosystem benchmark lint clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 20

setup: $(INSTALLED)  ## only make the environment (.venv)

setup-dev: $(DEVELOPED)  ## the same with what the tests and all extras need

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	@touch $@

$(DEVELOPED): $(INSTALLED)
	$(INSTALL) --editable '.[dev]'
	@touch $@

pretrain: $(INSTALLED)  ## train a small causal model on the text Python carries, into runs/pretrain_clm (under 5 minutes)
	$(LAUNCH) recipes/pretrain_clm.py $(ARGS)

pretrain-mlm: $(INSTALLED)  ## train a small encoder on the same text, into runs/pretrain_mlm
	$(LAUNCH) recipes/pretrain_mlm.py $(ARGS)

pretrain-seq2seq: $(INSTALLED)  ## train a small encoder-decoder on the same text, into runs/pretrain_seq2seq
	$(LAUNCH) recipes/pretrain_seq2seq.py $(ARGS)

pretrain-diffusion: $(INSTALLED)  ## train a small model that writes by filling in masks, into runs/pretrain_diffusion
	$(LAUNCH) recipes/pretrain_mlm.py --objective diffusion --output_dir runs/pretrain_diffusion $(ARGS)

pretrain-readings: $(INSTALLED)  ## train one small model that continues, fills in, writes by filling in, into runs/readings
	$(LAUNCH) recipes/pretrain_mlm.py --objective hybrid --causal_share 0.4 --diffusion_share 0.3 \
		--output_dir runs/readings $(ARGS)

pretrain-replaced: $(INSTALLED)  ## train a small encoder on telling replaced tokens apart, into runs/pretrain_replaced
	$(LAUNCH) recipes/pretrain_mlm.py --objective replaced-tokens --output_dir runs/pretrain_replaced $(ARGS)

finetune: $(INSTALLED)  ## fine-tune a model: make finetune [TASK=sst2] [MODEL=folder-or-id] [DATA=folder], into runs/TASK
	$(LAUNCH) recipes/finetune.py --task $(TASK) $(if $(MODEL),--model_name_or_path $(MODEL)) \
		$(if $(DATA),--data $(DATA)) $(ARGS)

chat: $(INSTALLED)  ## teach a model to answer, by default that of make pretrain, into runs/chat: make chat [MODEL=folder-or-id]
	$(LAUNCH) recipes/finetune_chat.py --model_name_or_path $(or $(MODEL),runs/pretrain_clm) $(ARGS)

tokenizer: $(INSTALLED)  ## train a tokenizer, into runs/tokenizer
	$(BIN)/python tokenizer/train.py $(ARGS)

data: $(INSTALLED)  ## prepare a corpus, into data/corpus
	$(BIN)/python recipes/prepare_data.py $(ARGS)

baselines: $(INSTALLED)  ## compare n-grams, an HMM, recurrent networks and attention on one text, into runs/baselines
	$(BIN)/python recipes/baselines.py $(ARGS)

generate: export WEFT_PROMPT = $(value PROMPT)
generate: $(INSTALLED)  ## continue a text: make generate PROMPT="..." [MODEL=folder]
	@$(BIN)/python recipes/generate.py --model $(or $(MODEL),runs/pretrain_clm) --prompt "$$WEFT_PROMPT" $(ARGS)

search: export WEFT_QUERY = $(value QUERY)
search: $(INSTALLED)  ## search Python's own documentation: make search QUERY="..." [MODEL=folder]
	@$(BIN)/python recipes/search.py python $(if $(MODEL),--model $(MODEL)) $(ARGS) -- "$$WEFT_QUERY"

test: $(DEVELOPED)  ## run the tests, as many files at a time as there are cores
	$(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-upstream: $(DEVELOPED)  ## run the model tests of the installed transformers' source distribution against Weft
	$(INSTALL) --editable '.[upstream]'
	$(BIN)/python -m pytest -q -o addopts= tests/upstream $(ARGS)

test-old: $(DEVELOPED) .venv-old/4.51/.installed .venv-old/4.57/.installed  ## load exports in transformers 4.51 and 4.57
	$(BIN)/python -m pytest -q -o addopts= tests/transformers4 $(ARGS)

.venv-old/%/.installed: tests/transformers4/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# mlflow knows older versions of pyarrow only: tests/ecosystem/constraints.txt names one, beside those of its own
$(ECOSYSTEM): pyproject.toml constraints.txt tests/ecosystem/constraints.txt
	rm -rf .venv-ecosystem
	$(PYTHON) -m venv .venv-ecosystem
	grep -v '^pyarrow==' constraints.txt > .venv-ecosystem/constraints.txt
	.venv-ecosystem/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-ecosystem/constraints.txt \
		--constraint tests/ecosystem/constraints.txt --editable '.[ecosystem]'
	@touch $@

test-ecosystem: $(ECOSYSTEM)  ## try other libraries (PEFT, TRL, ONNX Runtime ...) on Weft, in .venv-ecosystem
	.venv-ecosystem/bin/python -m pytest -q -o addopts= tests/ecosystem $(ARGS)

benchmark: $(INSTALLED)  ## measure what docs/performance.md shows (hours), into runs/benchmark: make benchmark ARGS="--only head"
	$(BIN)/python recipes/benchmark.py --entries recipes/configs/benchmark.yaml $(ARGS)

lint: $(DEVELOPED)  ## check style, types' presence and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove the environment and caches (runs/ and data/ stay)
	rm -rf .venv .venv-old .venv-ecosystem .cache .pytest_cache .ruff_cache
