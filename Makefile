# Everything needs Python 3.11 or newer and nothing else: `make train`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := runs/dates
# What a machine with CUDA may lack for benchmarks/gpu_check.sh.
KIT := 'nvidia-cudnn-frontend>=1.18,<1.29' 'array-api-compat>=1.11' 'array-api-strict>=2.3'
# The real CuPy on a device that is not there (tests/cuda_on_cpu): an environment of its own, with the newest Python.
CUDA_VENV := .venv-cuda
ON_CUDA := $(CUDA_VENV)/bin/python tests/cuda_on_cpu/run.py -m pytest -n auto -k cupy
DEPEND_ON_THE_CARD := tests/attnbackends tests/attnlayers/functional tests/attnlayers/layers
# On cards with little, more and much shared memory, and with the threads of a block in both orders of turns.
KERNELS := tests/attnbackends/_cuda/kernels

.PHONY: train test cuda-tests lint docs release-check book bench gpu-kit clean

train: $(INSTALLED)  ## train the date translator; a second call goes on with the run
	$(BIN)/attnlayers train dates --out $(RUN) $$(test -e $(RUN)/config.json && echo --resume)

test: $(INSTALLED)  ## run the tests on every array library that is installed
	$(BIN)/python -m pytest -n auto

cuda-tests: $(CUDA_VENV)/.installed  ## every CuPy test on the real CuPy, which runs on the CPU; needs g++, no GPU
	$(CUDA_VENV)/bin/python -m pytest -n auto tests/cuda_on_cpu
	CUDA_ON_CPU_CAPABILITY=9.0 $(ON_CUDA) --ignore=tests/cuda_on_cpu --ignore=$(KERNELS)
	CUDA_ON_CPU_CAPABILITY=8.6 $(ON_CUDA) $(DEPEND_ON_THE_CARD) --ignore=$(KERNELS)
	for card in 7.5 8.6 9.0; do CUDA_ON_CPU_CAPABILITY=$$card CUDA_ON_CPU_ORDER=both $(ON_CUDA) $(KERNELS) || exit; done

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.docs-installed  ## the site, in docs/_build/html: warnings are errors, notebooks and examples run
	rm -rf docs/_build docs/reference/generated
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m pytest -q tests/docs

release-check:  ## both archives, their contents and metadata, and the wheel on the oldest and the newest Python and NumPy
	.ci/release_check "$$(tests/cuda_on_cpu/newest_python.sh 3.11)" "$$(tests/cuda_on_cpu/newest_python.sh 3.13 3.12)"

bench: $(INSTALLED) $(CUDA_VENV)/.installed  ## attention against its peers: table, bench.json and bench.png; then the host's time of CuPy, on no device
	$(BIN)/attnlayers bench --out benchmarks/results
	$(CUDA_VENV)/bin/python -m benchmarks.host_time

book: $(INSTALLED)  ## make book BOOK=<checkout>: every script of the book, plain and with the drop-in
	$(BIN)/python -m benchmarks.book $(BOOK)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.docs-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@

# For gpu_check.sh on a machine without a network: CUDA 13, Python 3.12, CuPy, PyTorch and the usual tools are there.
gpu-kit: $(INSTALLED)  ## fetch what such a machine lacks into .gpu-kit, to be carried along
	rm -rf .gpu-kit
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
		--platform manylinux2014_x86_64 --dest .gpu-kit $(KIT)
	ls -l .gpu-kit

$(CUDA_VENV)/.installed: pyproject.toml
	"$$(tests/cuda_on_cpu/newest_python.sh)" -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(CUDA_VENV)/bin/python -m pip install --quiet --upgrade --editable '.[cuda-tests]'
	touch $@

clean:  ## remove the environment and what tools leave, never a run
	rm -rf $(VENV) $(CUDA_VENV) .gpu-kit dist docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
