# One environment, a few verbs. PYTHON is any Python from 3.11.5 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install
# Of `make install`: what the demo and README's commands use. No package of it is compiled here.
EXTRAS := run,local,publish,train,documents,embeddings,language,pii
# Of `make install-all`: all others that every machine can have, and the tools of the tests.
ALL_EXTRAS := $(EXTRAS),export,hosted,improve,interop,languages,math,pictures,scale,tools,tracing,tracking,harness,dev
# The only package without a hash: which build fits depends on the machine, and a local folder may serve it.
TORCH := torch>=2.9
# Each of some hundred processes of the tests would compile what it imports, and each of pytest all tests.
unexport PYTHONDONTWRITEBYTECODE
# Workers of pytest, each of which imports for seconds: one more than cores, where most tests wait for processes.
WAITING := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Of the tests, in the order in which they begin. `fast` is the last: its thousands of small tests keep both cores busy to the
# end, and until then use what the waits of the others leave.
GROUPS := check waits slow fast
LONGEST := --durations=12 --durations-min=5

.PHONY: install install-all lock docs demo test fast waits slow check bench clean $(GROUPS:%=test-%)

install: $(VENV)/installed

install-all: $(VENV)/installed-all

# pip checks the hash of every package but torch. The last step installs the project alone: without an index it fails where
# the lists lack something that the project needs.
$(VENV)/installed: pyproject.toml requirements/build.txt requirements/packages.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo "error: $(PYTHON) is older than 3.11.5; name another one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --quiet --require-hashes --no-deps --requirement requirements/build.txt
	$(PIP) --require-hashes --no-deps --no-build-isolation --requirement requirements/packages.txt
	$(PIP) '$(TORCH)'
	$(PIP) --no-index --no-build-isolation --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/installed-all: $(VENV)/installed requirements/all-extras.txt
	$(PIP) --require-hashes --no-deps --no-build-isolation --requirement requirements/all-extras.txt
	$(PIP) --no-index --no-build-isolation --editable '.[$(ALL_EXTRAS)]'
	touch $@

# The lists with hashes, after a change of dependencies in pyproject.toml, of constraints.txt or of requirements/*.in; needs uv.
comma := ,
LOCK := uv pip compile --quiet --universal --python-version 3.11.5 --constraint constraints.txt \
  --override requirements/overrides.txt --generate-hashes --no-annotate --no-header
lock:
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) $(addprefix --extra ,$(subst $(comma), ,$(EXTRAS))) pyproject.toml requirements/packages.in \
	  --output-file requirements/packages.txt
	$(LOCK) $(addprefix --extra ,$(subst $(comma), ,$(ALL_EXTRAS))) pyproject.toml requirements/packages.in \
	  --output-file requirements/all-extras.txt
	$(LOCK) --constraint requirements/all-extras.txt requirements/docs.in --output-file requirements/docs.txt

# All pages as a site with search, in build/site; fails at a broken link.
docs: $(VENV)/installed
	$(PIP) --quiet --require-hashes --no-deps --requirement requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The main job, end to end, with a real model in this process. A second call resumes an unfinished run; after a release, it makes
# the next generation.
demo: install
	$(BIN)/stillhouse run constrained-instructions --resume --release

# Two groups at a time share the cores: one rarely keeps them all busy. Every group runs, also after one that failed, and prints
# when it ends; the last line names those that failed.
test: install-all
	@failed=$$(mktemp) && \
	$(MAKE) --no-print-directory --jobs=2 --output-sync=recurse FAILED=$$failed $(GROUPS:%=test-%) && \
	names=$$(sort $$failed | xargs) && rm $$failed && \
	if [ -n "$$names" ]; then echo "failed: $$names"; exit 1; fi && \
	echo "all groups passed"

$(GROUPS:%=test-%): test-%: install-all
	@echo "== $*"; $(MAKE) --no-print-directory $* || echo $* >> $(FAILED)

# What needs neither a real teacher, nor a training, nor a whole run. Tests of one file stay with one worker, as long as others
# have work: what a file's tests share is made once. Those of the core run in a copy without plugins, here those of plugins and
# of all that is there; also after the first failed.
FAST := $(LONGEST) --numprocesses auto --dist worksteal
fast: install-all
	$(BIN)/python deploy/without_plugins.py -m "not slow and not whole" $(FAST) $(CORE_TESTS); core=$$?; \
	$(BIN)/pytest -m "not slow and whole" $(FAST) $(WHOLE_TESTS) && exit $$core

# The files with tests of a mark: to import all others takes longer than some groups' tests.
files = $(sort $(shell grep -rl --include='test_*.py' 'pytest\.mark\.$(1)' tests plugins))
CORE_TESTS = --ignore-glob='tests/test_*.py' tests
WHOLE_TESTS = plugins $(wildcard tests/test_*.py) $(call files,whole)

# Real processes, servers and workers, which wait more than they compute.
waits: install-all
	$(BIN)/pytest -m waits $(LONGEST) --numprocesses $(WAITING) --dist loadgroup $(call files,waits)

# A real teacher, a training or a whole run: one on each core, since most of their time is one process that starts.
slow: install-all
	ONE_CORE_EACH=1 $(BIN)/pytest -m "slow and not waits" $(LONGEST) --numprocesses auto --maxprocesses 4 --dist loadgroup \
	  $(call files,slow)

check: install-all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/size.py
	$(BIN)/python docs/language.py
	$(BIN)/python deploy/without_plugins.py

bench: install-all
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) data/runs
