# On a machine with Python 3.11 or later and make, each target does all of its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
POLICIES := ew,init,si,gls,rlw,uw,dwa,imtl-l,igb,constant:w=1,4,2,16,16,16,ppo

.PHONY: help setup demo test lint docs benchmarks methods pretrain

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY)  ## make the virtual environment

# torch comes first, pinned: a wider range fetches gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[data,dev,oracle]"
	@touch $@

demo: $(READY)  ## compare heuristics and the pretrained agent on digits; prints where the page is
	OMP_NUM_THREADS=1 $(BIN)/mtl-gym compare --problem digits --policies $(POLICIES) --instances 20 --seed 0 --out demo

test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(READY)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)  ## write the tables of README.md and the pages of docs/ anew
	$(BIN)/python docs/generate.py

benchmarks: $(READY)  ## measure the speeds that the README quotes, and what the bounds clip (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/clipping.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/throughput.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sample_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/solver_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/merging_speed.py
	$(BIN)/python benchmarks/grouping_speed.py

methods: $(READY)  ## search constant weights, and play every method on every problem (hours)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/constant_weights.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/methods.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rates.py
	$(BIN)/python docs/generate.py

pretrain: $(READY)  ## train the agents that are shipped (an hour), and hold them against the heuristics (three hours)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pretrain.py ppo
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/heldout.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ablation.py
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/pretrain.py ppo_samples
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sample_weighting.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pretrain.py ppo_merging
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/layer_merging.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pretrain.py ppo_groups
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/task_grouping.py
	$(BIN)/python docs/generate.py
