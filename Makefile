# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
LS_VENV ?= .venv-label-studio
ML_VENV ?= .venv-label-studio-ml
AUDIT_VENV ?= .venv-audit
BIN := $(VENV)/bin
# Where torch comes from; empty: PyPI, whose build for Linux carries CUDA. Not given, `make torch-index` chooses.
# TORCH_INDEX_URL ?=
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.14.1 torchvision==0.29.1
PIP_INSTALL := pip install --quiet --disable-pip-version-check --no-warn-script-location
# `make demo HEADLESS=1` runs through and exits; DATA=folder takes a coco_jsonl folder instead of the drawn scenes.
HEADLESS ?=
DATA ?=
TESTS ?= tests
# Processes that share the tests, file by file; most of the end to end tests' time is waiting.
TEST_WORKERS ?= 2

.PHONY: setup torch torch-index label-studio label-studio-ml demo test check audit format bench clean

setup: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing pslg into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	@$(MAKE) --no-print-directory torch
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@

# torch from the index that torch-index chooses; where that is PyPI, it comes with the other packages.
torch:
	@index=$$($(MAKE) --no-print-directory torch-index) && \
	  if [ -n "$$index" ]; then $(BIN)/$(PIP_INSTALL) --index-url "$$index" $(TORCH); fi

# Prints the index, nothing for PyPI, and says on stderr why.
torch-index:
ifneq ($(origin TORCH_INDEX_URL),undefined)
	@echo "PyTorch comes from $(or $(TORCH_INDEX_URL),PyPI), as TORCH_INDEX_URL says." >&2
	@echo "$(TORCH_INDEX_URL)"
else
	@if [ "$$(uname -s)" != Linux ]; then \
	  echo "PyTorch comes from PyPI, whose build for this system has no CUDA in it." >&2; \
	elif nvidia-smi -L 2>/dev/null | grep -q GPU; then \
	  echo "PyTorch comes from PyPI, with CUDA: this machine has an NVIDIA GPU." >&2; \
	elif $(PYTHON) -c "$$TORCH_CPU_ANSWERS" "$(TORCH_CPU_INDEX)" $(TORCH); then \
	  echo "PyTorch comes from $(TORCH_CPU_INDEX): this machine has no NVIDIA GPU." >&2; \
	  echo "$(TORCH_CPU_INDEX)"; \
	else \
	  echo "PyTorch comes from PyPI, with CUDA (several GB), although this machine has no NVIDIA GPU:" >&2; \
	  echo "the reason is above; TORCH_INDEX_URL chooses another index." >&2; \
	fi
endif

# Whether the index has all of these files, said within seconds: pip itself would try again for minutes.
define TORCH_CPU_ANSWERS
import sys, urllib.request as r
index, *wanted = sys.argv[1:]
try:
    for name, version in (item.split("==") for item in wanted):
        with r.urlopen(f"{index.rstrip('/')}/{name}/", timeout=5) as page:
            if f"{name}-{version}" not in page.read().decode():
                sys.exit(f"{index} has no {name} {version}.")
except OSError as error:
    sys.exit(f"{index} does not answer: {error}.")
endef
export TORCH_CPU_ANSWERS

label-studio: $(LS_VENV)/.installed
$(LS_VENV)/.installed: constraints-label-studio.txt
	@echo "Installing Label Studio into $(LS_VENV) ..."
	$(PYTHON) -m venv $(LS_VENV)
	$(LS_VENV)/bin/$(PIP_INSTALL) -r constraints-label-studio.txt
	@touch $@

# label-studio-ml 1.0.9 pins Flask 1.1.2 and so cannot share an installation by the rules; without its pins it runs on
# Flask 3. The .pth line puts the main environment behind this one, so that torch is not installed twice.
label-studio-ml: $(ML_VENV)/.installed
$(ML_VENV)/.installed: constraints-label-studio-ml.txt $(VENV)/.installed
	@echo "Installing label-studio-ml into $(ML_VENV) ..."
	$(PYTHON) -m venv $(ML_VENV)
	$(ML_VENV)/bin/$(PIP_INSTALL) --no-deps -r constraints-label-studio-ml.txt
	main=$$($(abspath $(BIN))/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  own=$$($(ML_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  echo "import site; site.addsitedir('$$main')" > $$own/main-environment.pth
	@touch $@

demo: setup label-studio
	$(BIN)/pslg demo $(if $(HEADLESS),--headless) $(if $(DATA),--data "$(DATA)")

test: setup label-studio label-studio-ml
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --severity-level medium backend dataset_tools benchmarks

# Known weaknesses of the pinned packages, where an advisory source is reachable.
audit:
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/$(PIP_INSTALL) pip-audit
	PATH="$(abspath $(AUDIT_VENV))/bin:$$PATH" .ci/audit

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# One JSON and a table per comparison, in runs/bench.
bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(LS_VENV) $(ML_VENV) $(AUDIT_VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
