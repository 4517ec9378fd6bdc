# make quickstart   the whole method in miniature on a CPU -> runs/quickstart/summary.json
# make test         lint, types and the test suite
# make test-quick   lint, types and some two minutes of it
# make test-image   builds the Dockerfile without a container engine and tests it (root, Debian; 10 to 20 minutes)
# All but the last first make .venv (once). PYTHON=python3.12 picks another interpreter; pip's own settings
# (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, ...) apply, for instance to take torch's CPU build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
QUICK_TESTS := $(addprefix tests/,agents chat checkpoints_convert dataset environments evaluation image \
  test_configuration.py test_errors_and_files.py test_imports.py test_processes.py)

# Tests of several processes, which need both cores of a small machine, or which time out when starved.
ALONE := $(addprefix tests/,gpu image model quickstart slurm training)

.PHONY: quickstart test test-quick test-image lint format clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed
	$(BIN)/python -m megatron_agent.quickstart

test: lint $(VENV)/installed-alfworld
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(ALONE)) $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ALONE) $(PYTEST_ARGS)

test-quick: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(QUICK_TESTS) $(PYTEST_ARGS)

test-image:
	bash tests/image/build.sh

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: setup.py .ci/constraints.txt .ci/make_venv.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash .ci/make_venv.sh
	touch $@

# ALFWorld's engine and WebShop's language model, for the tests alone: the engine is compiled for some two minutes.
$(VENV)/installed-alfworld: $(VENV)/installed
	bash .ci/install_alfworld.sh "$(VENV)"
	touch $@

clean:
	rm -rf $(VENV) runs/quickstart
