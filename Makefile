# make demo | test | tutorials | docs | lint | check | clean. Set-up runs once, and again when a requirement changes.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && exit; done; echo python3)
TORCH ?= torch==2.13.0
PIP_FLAGS ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo workbench test tutorials docs lint check clean

help:
	@echo "make demo       the whole story on the bundled model, in minutes"
	@echo "make workbench  a live page on the bundled model, in about a minute"
	@echo "make test       the test suite"
	@echo "make tutorials  run every notebook"
	@echo "make docs       the site, in build/site, with the tutorials as they ran"
	@echo "make lint       linter and type checker"
	@echo "make check      linter, type checker, tests, tutorials"
	@echo "make clean      remove the virtual environment and caches"

workbench: $(READY)
	$(BIN)/interp workbench landmark --session build/workbench

demo: $(READY)
	$(BIN)/interp demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:nbmake -n logical --dist loadfile --no-loadscope-reorder

tutorials: $(READY)
	rm -rf build/tutorials && mkdir -p build/tutorials && cp tutorials/*.ipynb build/tutorials/
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.tutorial_kernels --nbmake --overwrite --nbmake-timeout=900 -n logical build/tutorials/*.ipynb

docs: $(READY)
	test -d build/tutorials || $(MAKE) tutorials
	$(BIN)/python docs/build_site.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --isolated --select F821 tutorials
	$(BIN)/deptry .
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test tutorials docs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This needs Python 3.11 or later, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
		echo "Install a later one and name it: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) $(TORCH)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
