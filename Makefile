# What one does with a checkout. Every target does its own set-up (scripts/setup) and is quick the second time.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run up down test test-vm check bench tools setup lock proto docs clean
MAKEFLAGS += --no-print-directory

# make run TARGETS="port:8080,exe:/usr/sbin/nginx" watches these instead of the demo.
TARGETS ?=
# make test-vm KERNELS="6.1 6.12" boots these instead of all.
KERNELS ?=
EBBFLOW = .venv/bin/ebbflow $(if $(TARGETS),--set "capture.targets=$(TARGETS)")

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Run everything with a demo, or watch your own: make run TARGETS="port:8080" (also pid:, exe:, cgroup:; several by comma)
	@scripts/setup packages headers tracefs venv kafka
	@exec $(EBBFLOW) run

up: ## The same in the background
	@scripts/setup packages headers tracefs venv kafka
	@exec $(EBBFLOW) run --detach

down: ## Stop what `make up` started
	@exec .venv/bin/ebbflow down

test: ## All tests that this machine can run; says in one line what it cannot
	@scripts/test

test-vm: ## Every kernel that Debian offers, in QEMU; writes docs/kernels.md. Some: make test-vm KERNELS="6.1 6.12-rt"
	@KERNELS="$(KERNELS)" scripts/setup packages headers tracefs venv-dev vm-kernels
	@PYTHONPATH=tests .venv/bin/python -m vm.matrix $(KERNELS)

check: ## Lint, format, types, C style, import rule, generated files
	@scripts/setup packages clang-format venv-dev
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy
	@clang-format --dry-run -Werror bpf/*.c bpf/*.h
	@scripts/proto --check
	@.venv/bin/python -m pytest -q tests/test_architecture.py

bench: ## Measure what the documentation claims; writes bench/results/latest.json
	@scripts/setup packages witnesses headers tracefs venv-dev kafka
	@exec .venv/bin/python -m bench.run

tools: ## Build the OpenTelemetry Collector and telemetrygen that tests use
	@scripts/setup packages venv tools

setup: ## Only the set-up
	@scripts/setup packages headers tracefs venv-dev kafka

lock: ## Pin all dependencies anew
	@scripts/setup venv-dev
	@scripts/lock

proto: ## Generate ebbflow/v1 from proto/
	@scripts/setup venv-dev
	@scripts/proto

docs: ## Generate the reference pages of docs/
	@scripts/setup venv
	@.venv/bin/python -m ebbflow.reference
	@PYTHONPATH=tests .venv/bin/python -m vm.page

clean: ## Remove what was built and fetched, and all data of local runs; ends no process
	rm -rf .venv .cache .run .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
