VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch

.PHONY: install train test

install: $(VENV)/.installed

# torch first and alone: the constraint picks the pinned build before anything else asks for it.
$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

train: install
	$(BIN)/echospan train fixed --out runs/fixed --overwrite
	$(BIN)/echospan train variable --out runs/variable --overwrite

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest
