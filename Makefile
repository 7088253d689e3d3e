# One environment in .venv; each target installs just what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test unit lowest lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[litert,tflm]'
	@touch $@

# torch first and by exact version: an open range would pull gigabytes of GPU libraries.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable '.[all,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable '.[all,dev,bench]'
	@touch $@

demo: $(VENV)/.demo ## capture all layers of a small CNN in LiteRT and TensorFlow Lite Micro
	$(BIN)/layertap demo

test: lint ## lint, types, import contracts, and all tests; docs/device.md tells what more they can use
	$(PYTEST)

unit: $(VENV)/.dev ## the quick tests only
	$(PYTEST) -m "not slow"

# An environment of its own, in which each lower bound of pyproject.toml is the version. Without
# torch, of which constraints.txt has the oldest.
LOWEST := .venv-lowest
$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	grep -oE '"[a-z-]+>=[0-9][^",]*' $< | tr -d '"' | sed 's/>=/==/' > $(LOWEST)/versions.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(LOWEST)/versions.txt --editable '.[keras,litert,tflm,device]' \
		pytest pytest-timeout pytest-xdist hypothesis xarray tensorstore
	@touch $@

lowest: $(LOWEST)/.installed ## tests with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist worksteal -m "not slow" \
		tests/core tests/store tests/tflite tests/cli
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist worksteal \
		tests/runtimes/litert/test_session.py tests/runtimes/tflm/test_session.py \
		tests/runtimes/keras/test_files.py tests/runtimes/keras/test_sources.py

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench ## what reading costs, beside doing it by hand; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

clean: ## remove the environment and caches
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis layertap-demo
