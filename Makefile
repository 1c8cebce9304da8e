# Two commands do everything on a fresh machine: `make demo` and `make test`. Neither needs root or an API key.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
MODEL ?=
WORKERS ?= 2
export PYTHON

.PHONY: help setup demo test crash lint engine image images bench soak clean

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## Make .venv with everything needed (the others do it by themselves)
	@scripts/setup.sh

demo: setup ## Send out an agent and bring back the result, with no API key; MODEL=claude-… for a real model
	@$(BIN)/skiff demo $(if $(MODEL),--model $(MODEL))

test: setup lint ## Run the tests with what is reachable, and say loudly what could not run
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

crash: setup ## Kill the server at every numbered point of a turn, and write docs/crash-matrix.md
	@$(BIN)/python -m pytest -q tests/crash --deselect tests/crash/test_matrix.py::test_the_document_is_the_table
	@$(BIN)/python -m tests.crash.document

lint: setup ## Formatting, lints and types
	@$(BIN)/ruff check . && $(BIN)/mypy

engine: ## Install and start a container engine (Debian or Ubuntu, root)
	@scripts/engine.sh

image: setup ## Build the sandbox image
	@$(BIN)/skiff sandbox build

images: setup ## Build the ready-made images: standard, data, databases, ci
	@$(BIN)/skiff sandbox build --all

bench: setup ## Print every figure beside its other side, and store them as JSON in benchmarks/results
	@$(BIN)/python -m benchmarks

soak: setup ## Load a server for half an hour and see whether anything grows or is lost; SECONDS=… for how long
	@$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

clean: ## Remove what the above have made in this folder
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache dist build
