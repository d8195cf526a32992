# `make demo` and `make test` need nothing but Python 3.10 or later: they set up VENV themselves.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUN_ARGS ?=
# One thread a process and two processes: torch's threads wait more than they work on small pictures.
PYTEST_ARGS ?= -q -n 2 --dist loadfile --durations=10

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install -q -c $(CONSTRAINTS)
INSTALLED = setup.cfg pyproject.toml $(CONSTRAINTS)

.PHONY: demo test test-oldest clean

demo: $(VENV)/.tensorrt
	$(BIN)/ssdtrt run $(RUN_ARGS)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

# The same tests on Python 3.10 with torch 2.2.2; PYTHON names such a Python where `python3.10` is not on the path.
test-oldest:
	@$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt PYTHON="$${PYTHON310:-python3.10}"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.10 or later: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.python $(INSTALLED)
	@echo "installing ssdtrt and torch (about 3 GB, some minutes)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) -e '.[dev]'
	@touch $@

# With a GPU, Torch-TensorRT too; where it cannot be installed, that is said and the demo goes on with a CPU engine.
$(VENV)/.tensorrt: $(VENV)/.base
	@if nvidia-smi >/dev/null 2>&1; then \
	    echo "a GPU answers: installing Torch-TensorRT"; \
	    $(PIP) -e '.[tensorrt]' || echo "Torch-TensorRT cannot be installed here; going on without it"; \
	else echo "nvidia-smi does not answer: going on without Torch-TensorRT"; fi
	@touch $@

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info .pytest_cache .hypothesis
