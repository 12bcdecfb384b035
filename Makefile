# Two commands do everything on a fresh machine: `make demo` and `make test`. `make setup` alone only installs: what the
# README's commands need, the server and released models among them, which the demo does without.
PYTHON ?= python3
BIN := .venv/bin

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[eval]'
	touch $@

.venv/all: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[data,eval,hf,serve]'
	touch $@

.venv/dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.PHONY: setup demo test check clean
setup: .venv/all

OUT ?= demo-out
demo: .venv/ready
	$(BIN)/mio demo --out $(OUT) $(ARGS)

test: .venv/dev
	$(BIN)/python -m pytest -q -n auto --dist loadfile

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo-out
