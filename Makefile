# One word per task. `make` alone lists them.
# Another Python:   make demo PYTHON=python3.12
# On Linux, pip's torch comes with CUDA (about 3 GB). Without a GPU, the small one:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# pip runs again only when one of these files is newer than the stamp it left behind
READY := $(VENV)/ready
TEST_READY := $(VENV)/ready-test
DOCS_READY := $(VENV)/ready-docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest slow browser lint types bench sdxl-full sandbox-results evaluate evidence train tutorials docs docs-serve slides gradescope clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: $(READY)  ## text to 3D: "a red mushroom" into out/
	@$(PY) -m jsdsd "a red mushroom" -o out

test: $(TEST_READY)  ## the fast test suite
	@$(PY) -m pytest

slow: $(TEST_READY)  ## the tests that take minutes
	@$(PY) -m pytest -m slow

browser: $(TEST_READY)  ## the exports in three.js, glTF-Validator and Chromium (needs chromium and npm; npm downloads two)
	@$(PIP) playwright
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/js three@0.187.0 gltf-validator@2.0.0-dev.3.10
	@$(PY) -m pytest -m browser

# the lowest versions that pyproject.toml allows (Python 3.11), in an environment of their own
OLDEST := torch==2.6.0 diffusers==0.42.0 transformers==5.6.0 accelerate==1.0.0 numpy==1.26.0 scipy==1.11.1 \
  scikit-image==0.22.0 trimesh==4.6.0 matplotlib==3.8.0 pillow==10.1.0 tqdm==4.66.0
test-oldest:  ## the fast test suite with the oldest libraries allowed (an environment of its own, 3 GB)
	@$(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install --quiet -e '.[test]' $(OLDEST)
	@.venv-oldest/bin/python -m pytest

lint: $(TEST_READY)  ## style (ruff)
	@$(PY) -m ruff check .

types: $(TEST_READY)  ## types (mypy)
	@$(PY) -m mypy

bench: $(READY)  ## the renderer against marching with 3D grid_sample
	@$(PY) benchmarks/renderer.py

sdxl-full: $(READY)  ## one step through SDXL's true architecture, random weights (10 GB, minutes)
	@$(PY) benchmarks/sdxl_full.py

sandbox-results: $(READY)  ## every figure and table of docs/sandbox.md
	@$(PY) -m benchmarks.evidence.sandbox

evaluate: $(READY)  ## all numbers of docs/toybox.md and the contact sheet (half an hour)
	@$(PY) -m benchmarks.evidence.evaluate prior
	@$(PY) -m benchmarks.evidence.evaluate assets

evidence: $(READY)  ## every objective in 3D against the known truth: docs/evidence.md (half a day; goes on where it stopped)
	@$(PY) -m benchmarks.evidence --processes 2

train: $(READY)  ## train the embedded prior again from nothing (hours)
	@$(PY) -m jsdsd.toybox.train

tutorials: $(DOCS_READY)  ## run every tutorial in full, print the seconds of each
	@$(PY) tutorials/run.py

docs: $(DOCS_READY)  ## the documentation site into site/ (the tutorials run first: minutes; JSDSD_FAST=1: short)
	@$(PY) tutorials/run.py --missing
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "site/index.html opens in any browser"

docs-serve: $(DOCS_READY)  ## the site on http://127.0.0.1:8000 while you write; tutorials as last run
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

slides:  ## four lectures as HTML into out/slides/ (needs Node.js; opens in any browser, without a network)
	@npx --yes @marp-team/marp-cli@4 --input-dir tutorials/slides --output out/slides

gradescope: $(READY)  ## the autograder of the coursework as a zip for Gradescope, out/gradescope.zip
	@$(PY) tutorials/coursework/gradescope.py

clean:  ## remove caches and results; .venv stays
	rm -rf out site build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "jsdsd needs Python 3.10 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing jsdsd and its libraries into $(VENV) (once, a few minutes) ..."
	@$(PIP) -e .
	@touch $@

$(TEST_READY): $(READY)
	@echo "Installing the test tools into $(VENV) (once) ..."
	@$(PIP) -e '.[test]'
	@touch $@

$(DOCS_READY): $(READY)
	@echo "Installing the documentation tools into $(VENV) (once) ..."
	@$(PIP) -e '.[docs]'
	@touch $@
