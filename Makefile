# `make demo` and `make test` do all on a machine with Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# pip's own progress bars drown the log; `make PIP_FLAGS= demo` brings them back.
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: demo test quick check-full check-faults check-pairs check-wheel wheel lint format docs lock \
  clean .venv .venv-onnx

demo: .venv/installed
	$(BIN)/deeprank prepare --config=emoji
	$(BIN)/python -m deeprank_jax.main

# Four at a time on two cores: tests wait for processes of their own.
test: .venv/dev lint
	$(BIN)/python -m pytest -n 4 --dist=worksteal -m "not full"

# Without tests that train, start a browser or take over a second: 90 seconds.
quick: .venv/dev
	$(BIN)/python -m pytest -q -n 2 --dist=worksteal -m "not full and not slow"

# With programs as optimized as those of a user, which take longer to compile.
check-full: .venv/dev lint
	XLA_FLAGS=--xla_backend_optimization_level=3 $(BIN)/python -m pytest
	$(MAKE) check-faults
	$(MAKE) check-pairs

# Damages, kills, stops and starves everything, many times.
check-faults: .venv/dev
	mkdir -p build
	$(BIN)/python -m tools.faults --json=build/faults.json

# The quick tests with the oldest versions that pyproject.toml allows, and with those
# that the lock has for newer Pythons.
check-pairs: .venv-oldest/installed .venv-newest/installed
	.venv-oldest/bin/python -m pytest -q -n 2 -m "not full and not slow"
	.venv-newest/bin/python -m pytest -q -n 2 -m "not full and not slow"

# The wheel is built from the source distribution, and so tests both.
wheel: .venv/dev
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist

check-wheel: .venv/dev
	$(BIN)/python -m pytest tests/end_to_end/test_wheel.py

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/python -m tools.house

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

OLDEST := s/.*"(jax|flax|optax|orbax-checkpoint)>=([0-9.]+),.*/\1==\2/p
NEWEST_PYTHON ?= python3.13

.venv-oldest/installed: pyproject.toml requirements-dev.in | .venv/dev
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-oldest
	sed -nE '$(OLDEST)' pyproject.toml > .venv-oldest/constraints.txt
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python \
	  -c .venv-oldest/constraints.txt -r requirements-dev.in --editable ".[all]"
	touch $@

.venv-newest/installed: requirements.txt requirements-dev.txt | .venv/dev
	$(BIN)/uv venv --quiet --clear --python $(NEWEST_PYTHON) .venv-newest
	$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --require-hashes \
	  -r requirements.txt -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --no-deps --editable .
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
	rm -rf .venv .venv-onnx .venv-oldest .venv-newest runs data build dist *.egg-info
