# On a machine with Python 3.11 or later and make, each target does all of its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0
# Other people's libraries contradict each other: each has an environment of its own.
ENVIRONMENTS ?= .environments
CLIENTS := cluster d3rlpy examples minari rl_zoo3 rllib tianshou torchrl
POLICIES := ew,init,si,gls,rlw,uw,dwa,imtl-l,igb,uw-so,cov,famo,stch,igb+cagrad:c=.8,si+cagrad:c=.8,fairgrad:alpha=2,cagrad:c=.8,constant:w=4,2,4,4,16,ppo

.PHONY: help setup demo test slow lint wheel clients lowest docs benchmarks fuzz composition gpu methods transfer suites pretrain

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY)  ## create the virtual environment

# torch is installed first and pinned: a wider range fetches gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) $(TORCH)
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[data,dev,oracle,tuning]"
	@touch $@

demo: $(READY)  ## compare heuristics and the pretrained agent on digits; prints the path of the page
	OMP_NUM_THREADS=1 $(BIN)/mtl-gym compare --problem digits --policies $(POLICIES) --instances 12 --seed 0 --out demo

test: $(READY)  ## run the tests but the slow ones (five minutes at most)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

slow: $(READY)  ## run the slow tests: whole studies in processes of their own, and the contracts on every problem
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(READY)  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The package is installed from its wheel, and the tests do not see this folder's source. `build` would hand on deleted files.
$(ENVIRONMENTS)/%/.ready: tests/clients/requirements/%.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) $(TORCH)
	$(@D)/bin/python $(INSTALL) -r $< .
	@touch $@

.PRECIOUS: $(ENVIRONMENTS)/%/.ready

client-%: $(ENVIRONMENTS)/%/.ready
	rm -rf build
	$(<D)/bin/python $(INSTALL) --no-deps --force-reinstall .
	OMP_NUM_THREADS=1 $(<D)/bin/pytest -c tests/clients/clients.ini tests/clients/test_$*.py

# d3rlpy needs an older Gymnasium than this package: it reads data sets and writes arrays, which Minari's environment plays.
$(ENVIRONMENTS)/d3rlpy/.ready: tests/clients/requirements/d3rlpy.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) $(TORCH)
	$(@D)/bin/python $(INSTALL) -r $<
	@touch $@

client-d3rlpy: export D3RLPY = $(abspath $(ENVIRONMENTS))/d3rlpy/bin/python
client-d3rlpy: $(ENVIRONMENTS)/minari/.ready $(ENVIRONMENTS)/d3rlpy/.ready
	rm -rf build
	$(<D)/bin/python $(INSTALL) --no-deps --force-reinstall .
	OMP_NUM_THREADS=1 $(<D)/bin/pytest -c tests/clients/clients.ini tests/clients/test_d3rlpy.py

clients: $(CLIENTS:%=client-%)  ## train with other people's libraries, each in an environment of its own (a quarter of an hour)

wheel: client-wheel  ## install the wheel without extras, and run the README's lines from it (minutes)

lowest: $(ENVIRONMENTS)/lowest/.ready  ## run the tests with the lowest versions that pyproject.toml allows, torch apart (minutes)
	OMP_NUM_THREADS=1 $(<D)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -W default

# Every lower bound at once, so one that cannot be installed is an error. PyPI has old releases of torch with CUDA packages alone.
$(ENVIRONMENTS)/lowest/.ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) $(TORCH)
	sed -nE 's/^ *"([^">]+)>=([^"]+)".*/\1==\2/p' pyproject.toml | grep -v "^torch==" > $(@D)/lowest.txt
	$(@D)/bin/python $(INSTALL) -r $(@D)/lowest.txt -e ".[oracle]"
	@touch $@

docs: $(READY)  ## regenerate the tables of README.md, of the cards and of docs/
	$(BIN)/python -m docs.generate

benchmarks: $(READY)  ## measure the speeds quoted in the README, those of learning, and how often action bounds clip heuristics (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.clipping
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.throughput
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train_speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sample_speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.solver_speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.merging_speed
	$(BIN)/python -m benchmarks.grouping_speed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.doors_speed

fuzz: $(READY)  ## make 10,000 environments and 10,000 policies from random arguments (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz

composition: $(READY)  ## compare the speed of this source tree with another, interleaved: make composition BEFORE=folder (a quarter of an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.composition_speed --before $(BEFORE)

gpu: $(READY)  ## measure times on a GPU, and the limits set by its memory and arithmetic (minutes)
	$(BIN)/python -m benchmarks.gpu

methods: $(READY)  ## search for constant weights and every method's setting, then run every method on every problem (days)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.constant_weights
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.methods
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.picture

transfer: $(READY)  ## learn rules and agents on some problems, and play them on those that were left out (a night)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rules
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.logged
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bandit
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.best_rule teachers
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evolution
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.policy_gradient
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.action_forms
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.transfer
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.safety
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.suite_ranks
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ranges
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coefficients
	$(BIN)/python -m docs.generate

suites: $(READY)  ## search what is known of suites' instances, and run the leaderboards of the standard ones (hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sensitivity
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.best_known
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.leaderboards
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.executors
	$(BIN)/python -m docs.generate

pretrain: $(READY)  ## train the pretrained agents (an hour) and compare them with the heuristics (three hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pretrain ppo
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.heldout
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ablation
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.pretrain ppo_samples
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sample_weighting
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pretrain ppo_merging
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.layer_merging
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pretrain ppo_groups
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.task_grouping
	$(BIN)/python -m docs.generate
