"""Small settings, rollouts and comparisons that the tests share."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.modules import ModuleFactory
from mtl_gym.training.measurements import training_probes
from mtl_gym.training.trainer import Trainer

HIDDEN_SIZES = {"mlp": [8], "conv": [2, 8], "dense": [2, 2], "point": []}
MADE_FOR_GROUPING = {"digit_tasks", "clusters", "clusters_equal"}  # 16 to 100 tasks, whose groups are compared
IDS = (LOSS_WEIGHTING, SAMPLE_WEIGHTING, LAYER_MERGING, TASK_GROUPING)
TRAINING = {  # arguments of `agents.train`
    "problem": "quadratic",
    "train_steps": 40,
    "num_envs": 4,
    "rollouts_per_instance": 2,
    "evaluations": 1,
    "instances": 2,
    "references": [],
}


def small(problem="digits", env_id=LOSS_WEIGHTING, **others):
    """Arguments under which an episode of any problem takes a fraction of a second: two decisions."""
    excluded = specification(env_id).excluded
    if "steps_per_action" in excluded:  # a decision for each task
        problem = "digit_tasks" if problem == "digits" and "tasks" not in others else problem
        others = {"num_tasks": 2} | {name: value for name, value in others.items() if name != "steps_per_action"}
    row = problem if isinstance(problem, Problem) else PROBLEMS.get(str(problem))
    network = getattr(row, "network", "mlp")
    widths = [] if isinstance(network, ModuleFactory) else [8]
    settings = {"problem": problem, "hidden_sizes": HIDDEN_SIZES.get(network, widths) if isinstance(network, str) else widths}
    settings |= {"train_steps": 8, "steps_per_action": 4, "batch_size": 16, "holdout_size": 16} | others
    return {name: value for name, value in settings.items() if name not in excluded or name in others}


def slow_unless(cheap, rows):
    """Parameter sets; those that are not ``cheap`` are marked as slow: they repeat a cheap one at greater length."""
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=() if cheap(row) else pytest.mark.slow) for row in rows
    ]


def make(problem="digits", env_id=LOSS_WEIGHTING, **others):
    return gymnasium.make(env_id, disable_env_checker=True, **small(problem, env_id, **others))


def make_vec(problem="digits", num_envs=3, env_id=LOSS_WEIGHTING, **others):
    return gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **small(problem, env_id, **others)
    )


def make_trainer(problem="digits", ids=(0, 1, 2), env_id=LOSS_WEIGHTING, begin=True, options=None, **others):
    """A trainer whose rows have begun the instances ``ids``; ``options`` are the trainer's own."""
    common = check_arguments(
        specification(env_id), **small(problem, env_id, **{"steps_per_action": 1, "lr_schedule": "constant"} | others)
    )
    options = ({"by_samples": True} if env_id == SAMPLE_WEIGHTING else {}) | (options or {})
    trainer = Trainer(common.problem, common.recipe, len(ids), **options)
    if begin:
        trainer.begin(range(len(ids)), ids)
    return trainer


def train(trainer, steps, weights=None, active=None):
    """Trains with weights (N, K) (ones) in the active rows (all)."""
    count = trainer.num_replicas
    weights = torch.ones(count, trainer.recipe.num_tasks) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    active = torch.ones(count, dtype=torch.bool) if active is None else torch.tensor(active)
    for _ in range(steps):
        trainer.update(weights.expand(count, -1), active)
    return trainer


def own_parameters(trainer, row=0):
    """A row's parameters as leaves of their own, by name."""
    return {name: part[row].detach().clone().requires_grad_() for name, part in trainer.replicas.parameters.items()}


def poison(trainer, row, value, entry=slice(None)):
    """Puts a value in place of a row's parameters (or of some of them)."""
    state = trainer.clone()
    state["parameters"][row, entry] = value
    trainer.load(state)


def read(trainer, *names, charged=None):
    """What the trainer's probes measure by these names; its cost is charged to the rows ``charged`` (nobody)."""
    found = {}
    for probe in training_probes(trainer):
        if wanted := [name for name in probe.names if name in names]:
            reading = probe.measure(wanted)
            found |= reading.values
            if charged is not None:
                trainer.ledger.charge(torch.tensor(charged), reading.forward, reading.backward)
    return found


def random_actions(space, decisions, seed=0):
    """``decisions`` actions; those of the large Box of weights stay small, so that trainings live."""
    rng = np.random.default_rng(seed)
    if not isinstance(space, Box):  # of these, some are masked
        most = space.nvec if isinstance(space, MultiDiscrete) else space.n
        return [rng.integers(0, most) for _ in range(decisions)]
    high = np.minimum(space.high, 3)
    return [rng.uniform(np.maximum(space.low, -high / 10), high).astype(np.float32) for _ in range(decisions)]


def extreme_actions(space, decisions, seed=0):
    """Actions whose every entry lies on a bound."""
    rng = np.random.default_rng(seed)
    if not isinstance(space, Box):
        most = space.nvec if isinstance(space, MultiDiscrete) else space.n
        return [np.where(rng.random(np.shape(most)) < 0.5, 0, most - 1) for _ in range(decisions)]
    return [np.where(rng.random(space.shape) < 0.5, space.low, space.high).astype(np.float32) for _ in range(decisions)]


def play(env, actions, seed=0, options=None):
    """All that an environment returns: the reset's answer and one tuple for each action."""
    return [env.reset(seed=seed, options=options), *[env.step(action) for action in actions]]


def flat(value, path=""):
    """Every leaf of nested containers by its path, as an array."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value)
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif hasattr(value, "__dataclass_fields__"):
        items = vars(value).items()
    elif isinstance(value, np.random.Generator):
        return {path: np.asarray(repr(value.bit_generator.state))}
    else:
        return {path: value.detach().numpy().copy() if isinstance(value, torch.Tensor) else np.asarray(value)}
    return {name: leaf for key, part in items for name, leaf in flat(part, f"{path}/{key}").items()}


def _bits(leaf):
    return leaf.dtype, leaf.shape, leaf.tolist() if leaf.dtype == object else leaf.tobytes()


def same(first, second):
    """Whether two nested containers hold the same, bit for bit."""
    first, second = flat(first), flat(second)
    return first.keys() == second.keys() and all(_bits(first[name]) == _bits(second[name]) for name in first)


def differing(first, second):
    """The paths at which two nested containers differ."""
    first, second = flat(first), flat(second)
    return [
        name for name in {**first, **second} if name not in first or name not in second or _bits(first[name]) != _bits(second[name])
    ]


def rows_of(state, rows):
    """Those rows of every tensor of a trainer's state."""
    return {name: value[list(rows)] for name, value in state.items() if isinstance(value, torch.Tensor)}


def with_splits(problem, **splits):
    """A problem like that one, with other splits."""
    problem = load_problem(problem)
    return Problem(
        problem.name,
        problem.tasks,
        {**problem.splits, **splits},
        network=problem.network,
        defaults=problem.defaults,
        version=problem.version,
    )


def blind(problem):
    """The problem with NaN in place of every number of its test split."""
    test = load_problem(problem).splits["test"]
    blinded = with_splits(problem, test=Split(torch.zeros_like(test.inputs), torch.full_like(test.targets, torch.nan)))
    blinded.splits["test"].inputs.fill_(torch.nan)  # afterwards, since a problem refuses such inputs
    return blinded
