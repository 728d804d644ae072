# Two commands matter: `make demo` and `make test`. Both make their own environment in .venv first, and find it the next time.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-train bench lint format clean debian

# What tests read from Debian: installed where that is allowed, else the tests that need it are skipped, and say so.
# Not an ssh server, which would listen from then on: MORE_DEBIAN=openssh-server is for machines that are thrown away.
DEBIAN := dataset-fashion-mnist qemu-user-static libstdc++6-arm64-cross $(MORE_DEBIAN)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter of .venv (3.10 or later), WORKERS=4 the processes that test."

demo: $(VENV)/.installed ## compress and compile a real model, measure it, print a table; report in build/demo (under 10 minutes)
	$(PY) examples/demo.py --out build/demo

test: $(VENV)/.developing debian ## ruff, mypy, every test that is not slow; among them some against the built wheel in a new environment
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: $(VENV)/.developing debian ## the slow tests alone; installs NVIDIA's compilers, which some of them call
	@$(PY) -m pip install --quiet --editable ".[cuda,cuda12]" || echo "not installed: NVIDIA's compilers; the tests that call them are skipped"
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -m slow

# On Linux torch from PyPI brings gigabytes for CUDA. A smaller one does as well: install it into .venv first, from
# https://download.pytorch.org/whl/cpu for instance, and it is taken as it is.
test-train: $(VENV)/.developing debian ## the tests that train, which need torch: installed first unless .venv has it
	@$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install --quiet --editable ".[train]"
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile tests/passes/test_torch_operators.py tests/passes/test_to_torch.py \
	  tests/passes/test_finetune.py tests/passes/test_qat.py tests/passes/test_prune_finetune.py
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) tests/test_every_pass.py -k "finetune or qat"

bench: $(VENV)/.installed ## ResNet-18 at 224x224 beside its peers; figures in build/figures
	$(PY) benchmarks/x86.py --models resnet18 --out build/x86

lint: $(VENV)/.developing ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.developing ## let ruff format the sources
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean: ## take away what was built, and the environment
	rm -rf build $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

debian:
	@dpkg -s $(DEBIAN) >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && { apt-get install -qq --yes $(DEBIAN) || { apt-get update -qq && apt-get install -qq --yes $(DEBIAN); }; } >/dev/null 2>&1; } \
	  || echo "not installed (needs root on Debian): $(DEBIAN); the tests that read it are skipped"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("deburr needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0]) if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(PY) -m pip install --quiet --group dev
	@touch $@
