VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch
FRESH := .wheel-venv

.PHONY: install train test coverage wheel

install: $(VENV)/.installed

# torch first and alone: the constraint picks the pinned build before anything else asks for it.
$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# Each run's own table is left out here: the one at the end holds both.
train: install
	$(BIN)/echospan train fixed --overwrite >/dev/null
	$(BIN)/echospan train variable --overwrite >/dev/null
	$(BIN)/echospan evaluate runs/fixed runs/variable --stream 1000000

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile
	$(MAKE) wheel

# Lines and branches of src/ that the tests run, those of the processes that they begin among them.
coverage: install
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The built wheel, in an environment that has nothing of the checkout.
wheel: install
	rm -rf dist $(FRESH)
	$(BIN)/python -m build --wheel --no-isolation -o dist . >/dev/null
	python3 -m venv $(FRESH)
	$(FRESH)/bin/pip install -q -c constraints.txt $(TORCH)
	$(FRESH)/bin/pip install -q -c constraints.txt dist/*.whl
	cd $(FRESH) && bin/echospan --help >/dev/null
	cd $(FRESH) && bin/echospan train fixed --polish 0 --stream 0 --out run
	cd $(FRESH) && test "$$(bin/echospan echo run abacaba)" = "····aba"
	rm -rf $(FRESH)
