# Everything a contributor runs. `make help` explains the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV := hack/uv
RUN := $(UV) run --frozen --all-extras
PYTEST := $(RUN) pytest

.PHONY: help
help: ## Explain the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## From nothing to a served model, an answered batch, a slept and woken service; leaves the cluster up
	@PYTHONPATH=hack python3 -m demo

.PHONY: demo-down
demo-down: cluster-down ## Remove the cluster that `make demo` left running

.PHONY: test
test: ## All tests: unit, integration (real API server and nats-server), engine (real vLLM on CPU), end-to-end (real pods)
	@hack/cluster prepare integration
	$(PYTEST) tests/unit tests/integration tests/differential tests/e2e

.PHONY: unit
unit: ## Unit tests only (seconds)
	$(PYTEST) tests/unit

.PHONY: integration
integration: ## Integration tests only
	@hack/cluster prepare integration
	$(PYTEST) tests/integration

.PHONY: e2e
e2e: ## End-to-end tests only
	$(PYTEST) tests/e2e

.PHONY: differential
differential: ## The planner against vLLM's own code, for every real model configuration there is (half an hour)
	ENGINE_DIFFERENTIAL=1 $(PYTEST) tests/differential

.PHONY: bench
bench: ## Benchmarks; prints ratios measured side by side (docs/benchmarks.md keeps results)
	@hack/cluster prepare integration
	$(RUN) python -m tests.bench

.PHONY: verify
verify: ## What must hold before a commit: lint, types, layers, generated files, chart, unit tests
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m vllm_operator_api check
	"$$(hack/cluster bin helm)" lint --strict --quiet charts/vllm-operator
	$(UV) lock --check
	$(PYTEST) -q tests/unit

.PHONY: crds
crds: ## Generate the CRDs, the chart's copy and the API reference from the models
	$(RUN) python -m vllm_operator_api generate

.PHONY: format
format: ## Format the code
	$(RUN) ruff check --fix
	$(RUN) ruff format

.PHONY: images
images: ## Build the images of the local cluster and load them when it is up
	@hack/images/build all --load

.PHONY: cluster-up
cluster-up: ## A real Kubernetes on this machine: kind with Docker, else the native way
	@hack/cluster up

.PHONY: cluster-down
cluster-down: ## Remove the local cluster (the cache of binaries and images stays)
	@hack/cluster down
