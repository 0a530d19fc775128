# `make train` and `make test` need Python 3.11 or newer and nothing else; both make their own .venv first.
PYTHON ?= python3
BIN := .venv/bin
MATHS_TESTS := tests/ops tests/models tests/layers tests/fast tests/optim tests/gradcheck $(patsubst %,tests/test_%.py,\
	backend workspace params inputs stm sweep engine evaluate train checks)

.PHONY: train test test-thorough test-torch test-gpu coverage mutation tutorials lint types check clean

train: .venv/train.done  ## train the network on the bundled digits: offline, under a minute
	$(BIN)/stg-np train --overwrite

test: .venv/test.done  ## the test suite (two to three minutes on two cores)
	$(BIN)/python -m pytest --numprocesses auto

test-thorough: .venv/test.done  ## the same tests with eighty times as many random examples
	STG_NP_PROFILE=thorough $(BIN)/python -m pytest --numprocesses auto

test-torch: .venv/test.done  ## compare with PyTorch's autograd as well (installs PyTorch)
	$(BIN)/python -m pip install --quiet --group torch
	$(BIN)/python -m pytest tests/test_torch.py

test-gpu: .venv/test.done  ## the same tests on a real GPU (install an extra first: pip install -e '.[cuda13]')
	STG_NP_REQUIRE_GPU=1 $(BIN)/python -m pytest --device cuda

# Hypothesis's seed is fixed, so that the same lines are reached every time.
coverage: .venv/test.done  ## lines and branches of the mathematics that the tests reach: fails below 100 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses auto --hypothesis-seed 0 $(MATHS_TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutation: .venv/test.done  ## errors planted in the source, one at a time: fails if one is not noticed (long)
	$(BIN)/python -m tools.mutate --out benchmarks/results/mutation.md

tutorials: .venv/docs.done  ## run every chapter and write it as a notebook with outputs (tutorials/notebooks), and the page to play with
	$(BIN)/python -m tools.tutorials
	$(BIN)/python -m tools.play
	$(BIN)/python -m tools.sweep_picture

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: .venv/test.done
	$(BIN)/mypy

check: lint types test  ## everything that continuous integration asks

.venv/train.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/test.done: .venv/train.done
	$(BIN)/python -m pip install --quiet --group test
	touch $@

.venv/docs.done: .venv/train.done
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
