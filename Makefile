# make demo   train on one microscope, adapt to another, segment, score; opens napari at the end (GUI=0: never)
# make test   all tests, with a virtual display where there is no screen
# make lint   ruff and mypy
# make wheel-check   build the wheel and import it in an environment of its own
#
# Each does all set-up by itself: a virtual environment in .venv, and system packages where it may install them.

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
PYTEST_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)
export PYTHON

.PHONY: help setup demo test lint wheel-check clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or say PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; say PYTHON=python3.12, for example"; exit 1; }
	@bash scripts/system-packages.sh python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $(READY)

demo: $(READY)
ifneq ($(GUI),0)
	@bash scripts/system-packages.sh window
endif
	$(BIN)/napari-em-da demo --out $(OUT) $(if $(filter 0,$(GUI)),--no-gui)

test: $(READY)
	@bash scripts/system-packages.sh window display
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname -s)" != Linux ]; then \
	  $(BIN)/python -m pytest $(PYTEST_ARGS); \
	elif command -v xvfb-run >/dev/null; then \
	  xvfb-run -a -s "-screen 0 1600x1000x24" $(BIN)/python -m pytest $(PYTEST_ARGS); \
	else \
	  echo "NOTE: there is no display and no xvfb-run: the tests of the window are skipped."; \
	  $(BIN)/python -m pytest $(PYTEST_ARGS); \
	fi

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel-check: $(READY)
	$(BIN)/python scripts/check_wheel.py

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
