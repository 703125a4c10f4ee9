# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors

# The interpreter that makes .venv: Python 3.10 or newer, the system's where a ROS 2 is sourced.
PYTHON ?= python3
SETUP := $(PYTHON) resource/environment/setup_environment.py
VENV := .venv/bin
# One whose torch sees the GPU; it needs neither ROS nor .venv.
GPU_PYTHON ?= $(firstword $(wildcard $(VENV)/python) python3)

.PHONY: help setup setup-test demo test lint gpu format clean

help:  ## this text
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup:  ## make or update .venv: ROS 2, torch and segnode itself
	@$(SETUP)

setup-test:  ## the same with the test tools and the oracle
	@$(SETUP) --test

demo: setup  ## play a rendered scene as a camera through the node, and score what comes back
	$(VENV)/python -m segnode demo

test: lint  ## lint and run every test
	$(VENV)/python -m pytest

lint: setup-test  ## check style, types, layers and spelling
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/codespell

gpu:  ## on a machine with a GPU: check it rung by rung, then its tests and the benchmark
	$(GPU_PYTHON) test/gpu_ladder

format: setup-test  ## rewrite the code in the project's style
	$(VENV)/ruff check --fix
	$(VENV)/ruff format

clean:  ## remove .venv and caches
	rm -rf .venv .import_linter_cache .mypy_cache .ruff_cache .pytest_cache build install log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
