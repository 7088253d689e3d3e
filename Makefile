# One environment in .venv; each target installs just what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test unit lint bench clean

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

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench ## ratios to the bare forward pass; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis layertap-demo
