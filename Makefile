# The targets people use: demo, test, lint. Everything runs in .venv, made on first use from constraints.txt.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
PYTEST := $(PY) -m pytest

.PHONY: help demo test test-corpus test-differential test-endurance test-vm lint bench unit venv packages wheel clean

help:
	@echo "make demo         install what is missing, build an example image and run it"
	@echo "make test         lint and all tests (under 10 minutes)"
	@echo "make test-corpus  the long comparisons with other tools"
	@echo "make test-endurance  10,000 races, 1,000 builds, 10 GB of output, steps on older kernels"
	@echo "make test-vm      limits and filters on Debian's own kernel with cgroups v2, in a virtual machine"
	@echo "make test-differential  20,000 made-up Dockerfiles and words beside the Go parser, Docker and bash; cp"
	@echo "make lint         ruff, mypy --strict, import contracts"
	@echo "make unit         only the tests that need neither root nor other tools"
	@echo "make bench        time pybuild beside Docker, skopeo and docker-registry"

demo:
	@scripts/demo

venv:
	@scripts/make-venv dev

packages:
	@scripts/install-debian-packages test

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

# Root and interop tests stay together on one worker, the unit tests run beside it (tests/conftest.py).
test: packages lint
	@scripts/run-tests

unit: venv
	$(PYTEST) -n 2 -m "not root and not interop and not corpus"

test-corpus: packages venv
	@scripts/run-corpus

# What `make test` tries 500 times.
test-endurance: packages venv
	$(PYTEST) --timeout 1800 -m endurance tests/root

test-vm: venv
	@scripts/install-debian-packages vm
	$(PY) tests/vm/run.py

test-differential: packages venv
	PYBUILD_EXAMPLES=20000 $(PYTEST) --timeout 1800 tests/builder/frontend/test_differential.py \
		tests/builder/frontend/test_words_bash.py tests/interop/test_words_docker.py \
		tests/interop/test_cp_docker.py

bench: packages venv
	@scripts/run-bench

wheel: venv
	$(PY) -m hatchling build -t wheel -d dist

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
