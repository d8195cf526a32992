# `make demo`, `make test` and `make lint` need nothing but Python 3.10 or later: they set up VENV themselves.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUN_ARGS ?=
# One thread a process and two processes: torch's threads wait more than they work on small pictures.
PYTEST_ARGS ?= -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10
# Which tests `make test` runs; on the oldest stack all but the slow ones.
MARKERS ?= not gpu
# What the tests of the documentation and of Ray need; on the oldest stack they do not run.
MORE ?= $(VENV)/.docs $(VENV)/.ray
# Which of setup.cfg's extras brings Torch-TensorRT.
TENSORRT ?= tensorrt
# What the bench gate measures and how much slower it may be. GATE_BACKEND=torchscript gates a machine without a GPU.
GATE_BACKEND ?= tensorrt
GATE_BATCHES ?= 1 8 32 128
GATE_LIMIT ?= 10%

# TensorRT builders that need no GPU: the versions of TensorRT-RTX with the APIs of TensorRT 10.16 and 11.1.
ifeq ($(shell uname -sm),Linux x86_64)
BUILDERS ?= 1.4.0.76 1.6.1.120
endif
BUILDERS_FOLDER = $(abspath $(VENV))/builders
# Torch-TensorRT for the last of them, and what it imports.
TORCH_TENSORRT_RTX = torch-tensorrt-rtx==2.14.0 dllist==2.0.0

BIN = $(VENV)/bin
# Modules are compiled when they are first imported: of torch's files few ever are. So that has to be kept.
unexport PYTHONDONTWRITEBYTECODE
# uv needs a third of pip's time. It does not read pip's settings, such as another index: what it cannot install, pip does.
PIP = $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile -c $(CONSTRAINTS)
UV = $(BIN)/python -m uv pip install -q --python $(BIN)/python -c $(CONSTRAINTS)
install = $(UV) $(1) || $(PIP) $(1)
INSTALLED = setup.cfg pyproject.toml $(CONSTRAINTS)

OLDEST = install-oldest test-oldest test-gpu-oldest bench-gate-oldest bench-baseline-oldest
GATE = build/gate
SSDTRT = $(BIN)/python -m ssdtrt

.PHONY: demo install builders test lint docs test-gpu bench-gate bench-baseline bench-measure $(OLDEST) clean

demo: $(VENV)/.tensorrt
	$(BIN)/ssdtrt run $(RUN_ARGS)

install: $(VENV)/.dev

builders: $(BUILDERS:%=$(VENV)/.builder-%)

test: $(VENV)/.dev $(MORE) $(VENV)/.imported builders
	OMP_NUM_THREADS=1 SSDTRT_BUILDERS=$(if $(BUILDERS),$(BUILDERS_FOLDER)) $(BIN)/python -m pytest -m "$(MARKERS)" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/docs. Where a link leads nowhere, or anything else is amiss, that is a failure.
docs: $(VENV)/.docs
	@rm -rf build/docs
	$(BIN)/python -m sphinx -q -c docs -n -W --keep-going . build/docs

# The tests that need a GPU. When none ran, as where there is no GPU, that is a failure.
test-gpu: $(VENV)/.dev $(VENV)/.tensorrt
	PYTHONPATH=tests $(BIN)/python -m pytest -m gpu -p some_must_run -q --durations=10 tests

# This tree's engines against the baseline of this GPU (or processor) and these versions in benchmarks/baselines. Where the
# machine was busy or changed, `compare` ends with 3 ("not comparable") and not with 1 ("slower"); make itself ends with 2.
bench-gate: bench-measure
	@baseline=$$($(BIN)/python scripts/baseline.py $(GATE)/bench.json) && \
	    $(SSDTRT) compare "$$baseline" $(GATE)/bench.json --fail-if-slower $(GATE_LIMIT)

# This tree's engines become that baseline, unless their times vary by more than the gate allows.
bench-baseline: bench-measure
	$(SSDTRT) compare $(GATE)/bench.json $(GATE)/bench.json --fail-if-slower $(GATE_LIMIT)
	@$(BIN)/python scripts/baseline.py $(GATE)/bench.json --record

bench-measure: $(VENV)/.tensorrt
	@rm -rf $(GATE) && mkdir -p $(GATE)
	$(SSDTRT) export --weights random -o $(GATE)/ssd300.ts
ifeq ($(GATE_BACKEND),torchscript)
	$(SSDTRT) compile $(GATE)/ssd300.ts --backend torchscript -o $(GATE)/cpu.engine.ts
else
	for size in $(GATE_BATCHES); do \
	    $(SSDTRT) compile $(GATE)/ssd300.ts --fp16 --batch-size $$size -o $(GATE)/b$$size.engine.ts || exit 1; \
	done
endif
	$(SSDTRT) bench $(GATE)/*.engine.ts --json $(GATE)/bench.json

# The same on Python 3.10 with torch 2.2.2; PYTHON310 names such a Python where `python3.10` is not on the path.
$(OLDEST): %-oldest:
	@$(MAKE) $* VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt TENSORRT=tensorrt-pypi \
	    MARKERS="not gpu and not slow" BUILDERS= MORE= PYTHON="$${PYTHON310:-python3.10}"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.10 or later: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) uv || echo "uv cannot be installed; pip, which takes longer, is used"
	@touch $@

$(VENV)/.base: $(VENV)/.python $(INSTALLED)
	@echo "installing ssdtrt and torch (about 3 GB, some minutes)"
	@$(call install,-e .)
	@touch $@

$(VENV)/.dev: $(VENV)/.python $(INSTALLED)
	@echo "installing ssdtrt, torch and the tools of the tests (about 3 GB, some minutes)"
	@$(call install,-e '.[dev]')
	@touch $(VENV)/.base $@

$(VENV)/.docs: $(VENV)/.base
	@echo "installing the tools of the documentation"
	@$(call install,-e '.[docs]')
	@touch $@

$(VENV)/.ray: $(VENV)/.base
	@echo "installing Ray, and what drives a browser in the tests of the service's page"
	@$(call install,-e '.[ray]' playwright)
	@touch $@

# What the tests import is compiled once, and not by each of their processes at the same time.
$(VENV)/.imported: $(VENV)/.dev $(MORE)
	@echo "importing what the tests import"
	-@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --collect-only -q -n 0 >/dev/null 2>&1
	@touch $@

# Each in a folder of its own, because they cannot be installed together.
$(VENV)/.builder-%: $(VENV)/.python
	@echo "installing the TensorRT builder $*"
	@$(call install,--no-deps --target $(BUILDERS_FOLDER)/$* tensorrt-rtx-cu13==$* tensorrt-rtx-cu13-libs==$* \
	    tensorrt-rtx-cu13-bindings==$* $(if $(filter $*,$(lastword $(BUILDERS))),$(TORCH_TENSORRT_RTX)))
	@touch $@

# With a GPU, Torch-TensorRT too; where it cannot be installed, that is said and the demo goes on with a CPU engine. Then it
# is tried again the next time, as a driver or a network may be there by then.
$(VENV)/.tensorrt: $(VENV)/.base
	@if nvidia-smi >/dev/null 2>&1; then \
	    echo "a GPU answers: installing Torch-TensorRT"; \
	    if $(PIP) -e '.[$(TENSORRT)]'; then touch $@; \
	    else echo "Torch-TensorRT cannot be installed here; going on without it"; fi; \
	else echo "nvidia-smi does not answer: going on without Torch-TensorRT"; fi

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
