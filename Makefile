# make demo   a virtual environment, synthetic sources, one corpus, a picture of rows
# make sheets a picture of rows for each source, into docs/sources
# make test   everything that CI checks by running; make test-fast in under a minute
#
# PYTHON            the interpreter to make the environment with (3.11 or newer)
# VENV              where the environment stands
# PIP_EXTRA_INDEX   one more package index, for instance PyTorch's own CPU index on a machine without a GPU

PYTHON ?= python3
VENV ?= .venv
PIP_EXTRA_INDEX ?=
DEMO ?= demo

PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(PIP_EXTRA_INDEX),--extra-index-url $(PIP_EXTRA_INDEX))

.PHONY: demo test test-fast check sheets install install-dev clean

demo: install
	$(VENV)/bin/qoq-data build recipes/demo.yaml --synthetic --out $(DEMO)/corpus
	$(VENV)/bin/qoq-data verify $(DEMO)/corpus
	$(VENV)/bin/qoq-data view $(DEMO)/corpus --png $(DEMO)/rows.png

test: install-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup

test-fast: install-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup -m "not slow"

check: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/qoq-data card --check

sheets: install
	$(VENV)/bin/python scripts/source_sheets.py

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("QoQ needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable ".[dev,train]"
	$(VENV)/bin/python scripts/prepare_cpu_vllm.py
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) $(DEMO)
