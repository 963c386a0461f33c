# make demo    fit, forecast and compare on the embedded data
# make test    run the tests
# A GPU build of torch: make demo TORCH=torch   Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

.PHONY: demo test

demo: $(VENV)/installed
	$(VENV)/bin/seqdyn demo

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seqdyn needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# torch comes first: a requirement without a version takes the newest build, often gigabytes of CUDA libraries.
$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(VENV)/bin/python -m pip install "$(TORCH)"
	$(VENV)/bin/python -m pip install --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(VENV)/bin/python -m pip install "$(TORCH)"
	$(VENV)/bin/python -m pip install --editable ".[dev]"
	touch $@ $(VENV)/installed
