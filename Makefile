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
# `make demo HEADLESS=1` runs through and exits; DATA=folder takes a coco_jsonl folder instead of the drawn scenes.
HEADLESS ?=
DATA ?=
TESTS ?= tests

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
	$(BIN)/python -m pytest $(TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# One JSON and a table per comparison, in runs/bench.
bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(LS_VENV) $(ML_VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
