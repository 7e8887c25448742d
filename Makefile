# Everything needs Python 3.11 or newer and nothing else: `make train`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := runs/dates

.PHONY: train test lint book bench clean

train: $(INSTALLED)  ## train the date translator; a second call goes on with the run
	$(BIN)/attnlayers train dates --out $(RUN) $$(test -e $(RUN)/config.json && echo --resume)

test: $(INSTALLED)  ## run the tests on every array library that is installed
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED)  ## attention against its peers: table, bench.json and bench.png
	$(BIN)/attnlayers bench --out benchmarks/results

book: $(INSTALLED)  ## make book BOOK=<checkout>: every script of the book, plain and with the drop-in
	$(BIN)/python -m benchmarks.book $(BOOK)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:  ## remove the environment and what tools leave, never a run
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
