# Fairlead's workshop. `make help` lists the targets; `make demo` and `make test` are all that a newcomer needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Tests that need no cluster run on all cores. Those that need one wait more than they work: two processes, each with clusters of
# its own, share them file by file, the long ones too. Those marked `alone`, which measure or starve others, run one after the other.
PURE := -n auto --dist worksteal tests/unit tests/golden tests/law tests/world $(wildcard tests/sim)
PAIRED := -n 2 --dist loadfile
LIVE := $(filter-out tests/unit tests/golden tests/law tests/sim tests/world tests/data tests/bench tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
STORY ?= serve
OPERATOR ?= 1
export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fairlead needs Python 3.11 or newer; " + sys.executable + " is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11")'
	@echo "==> virtual environment in $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip $(VENV)
	@if [ -x $(BIN)/pip ]; then pip="$(BIN)/python -m pip"; else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
	  echo "==> pinned dependencies, checked by hash"; \
	  $$pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt; \
	  $$pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: init
init: $(VENV)/.installed ## virtual environment with everything pinned

.PHONY: lock
lock: init ## pin the dependencies of pyproject.toml anew, with hashes
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe --no-header \
	  -o requirements/operator.txt pyproject.toml
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe --no-header \
	  --extra render --extra cluster --extra dev -c requirements/operator.txt -o requirements/dev.txt pyproject.toml

.PHONY: lint
lint: init ## ruff, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.PHONY: types
types: init ## mypy --strict
	$(BIN)/mypy

.PHONY: generate
generate: init ## CRDs, RBAC, reference docs from the types
	@$(BIN)/python -m hack.generate

.PHONY: check-generated
check-generated: generate
	@git diff --exit-code -- crds charts manifests docs || { echo "generated files are stale: commit what 'make generate' wrote"; exit 1; }

.PHONY: control-plane
control-plane: init
	@$(BIN)/python -m fairlead_cluster build

.PHONY: test
test: lint types check-generated control-plane ## everything but the long tests (9 minutes warm on two cores)
	$(PYTEST) -m "not long" $(PURE)
	$(PYTEST) -m "not long" $(PAIRED) $(LIVE)

.PHONY: test-all
test-all: lint types check-generated control-plane engines tools ## everything, long tests too (what CI runs)
	@failed=0; set -x; $(PYTEST) --durations=25 $(PURE) || failed=1; \
	  $(PYTEST) --durations=25 -m "not alone" $(PAIRED) $(LIVE) || failed=1; \
	  $(PYTEST) --durations=25 -m alone $(LIVE) || failed=1; exit $$failed

.PHONY: unit
unit: init ## the fast tests only
	$(PYTEST) -m "not long" $(PURE)

.PHONY: bench
bench: init control-plane ## figures against their targets; writes .bench/*.json
	$(BIN)/python -m tests.bench

.PHONY: soak
soak: init control-plane ## random edits, faults and kills for MINUTES=60, every write explained (SEED=n tells one again)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60) --crs $(or $(CRS),200) $(if $(SEED),--seed $(SEED))

.PHONY: sweep
sweep: init ## every schedule of the simulation (some 20 minutes on two cores); CI takes each fifth
	FAIRLEAD_SWEEP_EVERY=1 $(PYTEST) -n auto --dist worksteal -m long tests/sim -k all_schedules

.PHONY: demo
demo: init ## the main job on a local cluster: STORY=serve, KEEP=1 leaves it running
	@$(BIN)/python -m fairlead_cluster.demo --story $(STORY) $(if $(KEEP),--keep)

.PHONY: cluster-up
cluster-up: init ## local cluster in the background (OPERATOR=0: without the operator)
	@$(BIN)/python -m fairlead_cluster up $(if $(filter 0,$(OPERATOR)),--no-operator)

.PHONY: cluster-down
cluster-down: init ## end the local cluster
	@$(BIN)/python -m fairlead_cluster down

.PHONY: engines
engines: init ## build the real engines (CPU Ollama, about 4 minutes) into the cache
	@$(BIN)/python -m fairlead_cluster.engines build

.PHONY: tools
tools: init ## helm, kind, kstatus, llm-katan and Prometheus into the cache, which tests use as judges (about 2 minutes)
	@$(BIN)/python -m hack.tools
	@$(BIN)/python -m hack.katan
	@$(BIN)/python -m hack.prometheus || echo "tests of rules and alerts that need Prometheus will skip"

.PHONY: kind-up
kind-up: ## the same on kind, for machines with Docker
	kind create cluster --name fairlead --config kind-config.yaml
	docker build -t fairlead:dev .
	kind load docker-image fairlead:dev --name fairlead
	kubectl apply -k manifests/base
	kubectl -n fairlead-system set image deployment/fairlead operator=fairlead:dev

.PHONY: clean
clean: ## remove what was built in the checkout (not the cache)
	@[ ! -d .localcluster ] || $(BIN)/python -m fairlead_cluster down || true
	rm -rf $(VENV) .localcluster .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info operator/*.egg-info
	find operator tests hack -name __pycache__ -type d -prune -exec rm -rf {} +
