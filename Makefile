# `make run` and `make test` do everything, set-up included, on a machine with Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
BASE ?= HEAD

# DALI exists for Linux only; elsewhere the other loaders do its work.
ifeq ($(shell uname -s),Linux)
EXTRAS := run,dali,ray
else
EXTRAS := run
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint format bench gate record long page clean

help: ## this list
	@echo 'usage: make TARGET [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

run: $(READY) ## set up, run the first claim on embedded data (minutes), leave the page at runs/report.html
	$(BIN)/repro run claim relu-speedup --condition smoke --store runs
	$(BIN)/repro report --html runs/report.html --store runs
	@echo "The page is at $(CURDIR)/runs/report.html"

test: lint ## set up, lint, and run the whole suite
	$(BIN)/python -m pytest

lint: $(READY) ## style, types, import layers, citation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cffconvert --validate

format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## the benchmarks, which the suite leaves out
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

gate: $(READY) ## whether this tree is grossly slower here than a commit: make gate BASE=COMMIT (minutes)
	$(BIN)/python tests/benchmarks/gate.py $(BASE)

record: $(READY) ## time what README and docs say of speed again, from a clean commit on a quiet machine
	tests/benchmarks/record.sh

long: $(READY) ## the tests that take minutes, which the suite leaves out
	$(BIN)/python -m pytest -m long

page: $(READY) ## make the page and the table in reports/, and the README's picture, again from the committed records
	$(BIN)/repro publish --store reports --to reports
	$(BIN)/python tests/picture.py

clean: ## remove caches and builds; .venv and the records in runs/ stay
	rm -rf build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find repro tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp says that what pyproject.toml asks for is installed; a half-made environment is finished, not thrown away.
$(READY): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 && exit; \
	fail() { echo "$$1" >&2; exit 1; }; \
	command -v '$(PYTHON)' >/dev/null || \
	    fail 'There is no $(PYTHON) here: install Python 3.11 or later, or name one: make PYTHON=python3.12'; \
	'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    fail "Python 3.11 or later is needed, and $(PYTHON) is $$('$(PYTHON)' -V 2>&1): name another: make PYTHON=python3.12"; \
	'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	    fail '$(PYTHON) cannot make environments (it lacks ensurepip); on Debian and Ubuntu: apt install python3-venv'; \
	'$(PYTHON)' -m venv $(VENV)
	@echo 'Installing into $(VENV) with the extras $(EXTRAS): several gigabytes the first time'
ifeq ($(EXTRAS),run)
	@echo 'DALI is left out: it exists for Linux only'
endif
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --editable '.[$(EXTRAS)]' --group dev
	@touch $@
