# Everything needs Python 3.11 or newer and nothing else: `make train`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := runs/dates
# The real CuPy on a device that is not there (tests/cuda_on_cpu): an environment of its own, with the newest Python.
CUDA_VENV := .venv-cuda
ON_CUDA := $(CUDA_VENV)/bin/python tests/cuda_on_cpu/run.py -m pytest -n auto -k cupy
DEPEND_ON_THE_CARD := tests/attnbackends tests/attnlayers/functional tests/attnlayers/layers

.PHONY: train test cuda-tests lint book bench clean

train: $(INSTALLED)  ## train the date translator; a second call goes on with the run
	$(BIN)/attnlayers train dates --out $(RUN) $$(test -e $(RUN)/config.json && echo --resume)

test: $(INSTALLED)  ## run the tests on every array library that is installed
	$(BIN)/python -m pytest

cuda-tests: $(CUDA_VENV)/.installed  ## every CuPy test on the real CuPy, which runs on the CPU; needs g++, no GPU
	$(CUDA_VENV)/bin/python -m pytest -n auto tests/cuda_on_cpu
	CUDA_ON_CPU_CAPABILITY=9.0 $(ON_CUDA) --ignore=tests/cuda_on_cpu --ignore=tests/cupy_standin
	CUDA_ON_CPU_CAPABILITY=8.6 CUDA_ON_CPU_ORDER=both $(ON_CUDA) $(DEPEND_ON_THE_CARD)

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

$(CUDA_VENV)/.installed: pyproject.toml
	"$$(tests/cuda_on_cpu/newest_python.sh)" -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(CUDA_VENV)/bin/python -m pip install --quiet --upgrade --editable '.[cuda-tests]'
	touch $@

clean:  ## remove the environment and what tools leave, never a run
	rm -rf $(VENV) $(CUDA_VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
