# `make train` and `make test` work on a fresh machine: each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2

.PHONY: help train test test-slow test-gpu test-tensorflow check format augment-preview docs docs-site bench package clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frcnn needs Python 3.11 or newer (make PYTHON=python3.11 ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(VENV)/.runtime  ## train on the built-in toy street scenes; ARGS="backbone=resnet34" overrides
	$(BIN)/python scripts/train.py $(ARGS)

test: $(VENV)/.dev  ## the default tests, in WORKERS processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.dev  ## full training jobs and other long checks
	$(BIN)/python -m pytest -q -m slow --timeout 7200 $(ARGS)

test-gpu: $(VENV)/.dev  ## checks that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

test-tensorflow: $(VENV)/.dev  ## our records against TensorFlow's reader and writer; installs tensorflow-cpu
	$(BIN)/python -m pip install --quiet --disable-pip-version-check tensorflow-cpu
	$(BIN)/python -m pytest -q -m tensorflow $(ARGS)

check: $(VENV)/.dev  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

augment-preview: $(VENV)/.runtime  ## contact sheets of the augmentation; ARGS="spec=FILE" or groups
	$(BIN)/python scripts/preview_augmentation.py $(ARGS)

docs: $(VENV)/.runtime  ## regenerate the pages and pictures that come from the code
	$(BIN)/python -m frcnn.spec.reference > docs/spec-reference.md
	$(BIN)/python -m frcnn.cli.reference > docs/tao-words.md
	$(BIN)/python docs/draw_layers.py > docs/images/layers.svg

bench: $(VENV)/.runtime  ## our step and inference against torchvision's FasterRCNN
	$(BIN)/python benchmarks/train_step.py $(ARGS)
	$(BIN)/python benchmarks/infer.py $(ARGS)

docs-site: $(VENV)/.docs  ## the documentation as pages in site/, with a search (python -m http.server -d site)
	$(BIN)/python -m mkdocs build --strict --quiet $(ARGS)

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

package: $(VENV)/.dev  ## sdist and wheel in dist/, each installed and used in a fresh environment
	$(BIN)/python packaging/try_package.py $(ARGS)

clean:  ## remove caches and the virtual environment
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
