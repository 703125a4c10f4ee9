# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors

# The interpreter that makes .venv: Python 3.10 or newer, the system's where a ROS 2 is sourced.
PYTHON ?= python3
# The distribution of the wheels, kilted or jazzy. Where a ROS 2 is sourced, that one is used.
ROS := kilted
SETUP := $(PYTHON) resource/environment/setup_environment.py
VENV := .venv/bin
# The one with the distribution that was asked for.
ROS_VENV := $(if $(filter jazzy,$(ROS)),.venv-jazzy,.venv)/bin
ifneq ($(ROS),kilted)
ifneq ($(ROS),jazzy)
$(error ROS=$(ROS): expected kilted or jazzy)
endif
endif
# Sourced by the shell, apart from the prefixes made here.
SOURCED := $(strip $(ROS_DISTRO) $(filter-out $(CURDIR)/.venv%,$(subst :, ,$(AMENT_PREFIX_PATH))))
# Of pytest, where nothing is timed. A worker that dies is not replaced: pytest-xdist 3.8 may wait for
# ever for a file that the dead one had next.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
# One whose torch sees the GPU; it needs neither ROS nor .venv.
GPU_PYTHON ?= $(firstword $(wildcard $(VENV)/python) python3)

.PHONY: help setup setup-test demo test test-core test-nodes test-timed test-oracles test-old smoke \
    lint gpu arm arm-wheels format clean
# Timed tests have the machine to themselves, and each target sets up first.
.NOTPARALLEL:

help:  ## this text
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup:  ## make or update .venv: ROS 2, torch and segnode itself (ROS=jazzy: .venv-jazzy too)
	@$(SETUP) --ros $(ROS)

setup-test:  ## the same with the test tools and the oracle
	@$(SETUP) --ros $(ROS) --test

demo: setup  ## play a rendered scene as a camera through the node, and score what comes back
	$(ROS_VENV)/python -m segnode demo

ifeq ($(ROS),kilted)
test: lint  ## lint, run every test, and a few on Jazzy (ROS=jazzy: those that need ROS, on Jazzy)
	@# All of them, whatever one finds.
	@$(MAKE) --no-print-directory --keep-going test-core test-nodes test-timed smoke

# Side by side where nothing is timed; what is has the machine to itself.
test-core:
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -m 'not (ros or timed)' $(SIDE_BY_SIDE)

test-nodes:
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -m 'ros and not timed' $(SIDE_BY_SIDE)

test-timed:
	$(VENV)/python -m pytest -m timed
else
test: setup-test
	$(ROS_VENV)/python -m pytest -m ros
endif

test-oracles:  ## install MMDetection apart, and compare with it on photographs (half an hour)
	@$(SETUP) --test --oracles
	$(VENV)/python -m pytest test/oracles

test-old:  ## every test that needs no ROS, on Python 3.10, NumPy 1.26 and PyTorch 2.5 (PYTHON=python3.10)
	@$(SETUP) --old --test
	OMP_NUM_THREADS=1 .venv-old/bin/python -m pytest -m 'not (ros or timed)' $(SIDE_BY_SIDE) --ignore=test/test_packaging.py
	.venv-old/bin/python -m pytest -m 'timed and not ros'

smoke:  ## node, lifecycle and messages on Jazzy from wheels
ifeq ($(SOURCED),)
	@$(SETUP) --ros jazzy --test
	.venv-jazzy/bin/python -m pytest -m smoke test/ros test/test_doctor.py test/test_packaging.py
else
	@echo 'smoke: Jazzy from wheels is skipped, as a ROS 2 is sourced'
endif

lint: setup-test  ## check style, types, layers and spelling
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/codespell
	$(VENV)/hadolint resource/docker/Dockerfile resource/docker/Dockerfile.jetson

gpu:  ## on a machine with a GPU: check it rung by rung, then its tests and the benchmark
	$(GPU_PYTHON) test/gpu_ladder

arm:  ## the compiled steps for 64-bit Arms: cross-compile them, and run their tests under qemu-user
	$(VENV)/python test/arm

arm-wheels:  ## ask the index which pinned packages there are for 64-bit Arms
	$(VENV)/python resource/environment/aarch64.py

format: setup-test  ## rewrite the code in the project's style
	$(VENV)/ruff check --fix
	$(VENV)/ruff format

clean:  ## remove .venv, .venv-jazzy, .venv-old and caches
	rm -rf .venv .venv-jazzy .venv-old .import_linter_cache .mypy_cache .ruff_cache .pytest_cache build install log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
