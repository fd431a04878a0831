# Needs: python3 >= 3.11 with venv, and a C++ compiler. Everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2 # test processes

.PHONY: demo test faults docs clean help
.DEFAULT_GOAL := help

help:
	@echo 'make demo    install, then run the whole pipeline on generated data (wsss demo)'
	@echo 'make test    install with the test extras, then lint, type-check and run every test'
	@echo 'make faults  kills, signals, failing writes and limits, also of the whole pipeline; takes long'
	@echo 'make docs    the documentation as a site that needs no network, build/docs/site/index.html'
	@echo 'make clean   remove $(VENV), build products and caches; data/ and runs/ stay'

demo: $(VENV)/.installed
	$(BIN)/wsss demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy wsss_cli
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

faults: $(VENV)/.installed-test
	WSSS_STORM=1 $(BIN)/pytest -q tests/faults

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[docs]'
	$(BIN)/python docs/make_site.py build/docs

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo 'error: there is no $(PYTHON); install Python 3.11 or newer, or: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version) is too old; 3.11 or newer is needed, for example: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The stamps are older than pyproject.toml when dependencies have changed: then pip runs again.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist wsss.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
