# make demo: set-up and the main job.  make test: set-up and the tests.
SHELL := /bin/sh
# A worker that crashed is not replaced: pytest-xdist waits for ever after that.
PYTEST ?= .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# The project keeps its AiiDA configuration to itself unless the user names another place.
export AIIDA_PATH ?= $(CURDIR)/.aiida
# AiiDA starts its daemon as `verdi`.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# One thread for each of the processes that share the cores: threads that wait for each other slow some tests tenfold.
test test-all: export OMP_NUM_THREADS = 1

.PHONY: demo uff test test-all install setup docs lint clean

demo: setup
	.venv/bin/verdi -p mofmace run examples/mil120_fast.py

test: install
	@scripts/install_uff.sh
	$(PYTEST) -m "not slow"

test-all: install
	@scripts/install_uff.sh
	$(PYTEST)

install:
	@scripts/install.sh

setup: install
	@.venv/bin/mofmace setup

# Grand-canonical Monte Carlo with a generic force field: RASPA is compiled, which takes minutes.
uff: setup
	@scripts/install_uff.sh --required
	.venv/bin/mofmace setup

docs: install
	.venv/bin/sphinx-build -W -b html docs docs/_build/html

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf docs/_build .mypy_cache .pytest_cache .ruff_cache
