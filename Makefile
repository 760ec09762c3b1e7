# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
LS_VENV ?= .venv-label-studio
ML_VENV ?= .venv-label-studio-ml
BIN := $(VENV)/bin
# PyTorch's CPU wheels are about ten times smaller than PyPI's CUDA build:
#   make setup TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=
PIP_INSTALL := pip install --quiet --disable-pip-version-check --no-warn-script-location

.PHONY: setup label-studio label-studio-ml demo test check format bench clean

setup: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing pslg into $(VENV) (PyPI's torch is the CUDA build, several GB; TORCH_INDEX_URL chooses another) ..."
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX_URL),$(BIN)/$(PIP_INSTALL) --index-url $(TORCH_INDEX_URL) torch==2.14.1 torchvision==0.29.1)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@

label-studio: $(LS_VENV)/.installed
$(LS_VENV)/.installed: constraints-label-studio.txt
	@echo "Installing Label Studio into $(LS_VENV) ..."
	$(PYTHON) -m venv $(LS_VENV)
	$(LS_VENV)/bin/$(PIP_INSTALL) -r constraints-label-studio.txt
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
