# make quickstart   the whole method in miniature on a CPU -> runs/quickstart/summary.json
# make test         lint, types and the test suite
# Both first make .venv (once). PYTHON=python3.12 picks another interpreter; pip's own settings
# (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, ...) apply, for instance to take torch's CPU build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: quickstart test lint format clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed
	$(BIN)/python -m megatron_agent.quickstart

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

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

clean:
	rm -rf $(VENV) runs/quickstart
