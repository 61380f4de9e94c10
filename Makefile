VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch
FRESH := .wheel-venv

.PHONY: install train test coverage mutation wheel browser docs

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

test: install browser
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(MAKE) wheel

# Lines and branches of src/ that the tests run, those of the processes that they begin among them.
coverage: install
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The tests of the page drive the Chromium of the machine, and are skipped where there is none.
browser:
	@for name in chromium chromium-browser chrome; do command -v $$name >/dev/null && exit; done; \
	if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  apt-get update -q && apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core \
	    || echo "no Chromium could be installed: the tests of the page tell" >&2; \
	else echo "no Chromium here: install one to test the page" >&2; fi

# Into site/, to be read from disk or put on any server; a test builds it too.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Half an hour on one core; goes on where it was stopped.
mutation: install
	$(BIN)/pip install -q -c constraints.txt -e ".[mutation]"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mutation

# The built wheel, in an environment that has nothing of the checkout.
wheel: install
	rm -rf dist $(FRESH)
	$(BIN)/python -m build --wheel --no-isolation -o dist . >/dev/null
	python3 -m venv $(FRESH)
	$(FRESH)/bin/pip install -q -c constraints.txt $(TORCH)
	$(FRESH)/bin/pip install -q -c constraints.txt dist/*.whl
	cd $(FRESH) && bin/echospan --help >/dev/null
	cd $(FRESH) && test "$$(bin/echospan echo --model variable --delay 3 abacaba)" = "···abac"
	cd $(FRESH) && bin/echospan train fixed --polish 0 --stream 0 --out run
	cd $(FRESH) && test "$$(bin/echospan echo run abacaba)" = "····aba"
	rm -rf $(FRESH)
