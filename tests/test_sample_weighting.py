"""Weights of samples: alignments by hand, actions by hand, what is hidden, what is kept, and the heuristics' formulas."""

from __future__ import annotations

import copy
import functools
import json
import pickle

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from rollouts import (
    LOSS_WEIGHTING,
    SAMPLE_WEIGHTING,
    differing,
    make,
    make_trainer,
    make_vec,
    own_parameters,
    play,
    random_actions,
    rows_of,
    same,
    small,
    train,
    with_splits,
)
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.cli import app
from mtl_gym.decisions.sample_rules import (
    ALIGNMENT,
    COSINE,
    FEATURES,
    LABELLED,
    LOSS,
    MAIN,
    MEAN,
    RIGHT,
    SampleWeighing,
    ranks,
    separation,
)
from mtl_gym.decisions.sample_weights import SampleWeights
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import LEAST_META
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.sample_plots import separations
from mtl_gym.policies.finding import environment_of
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem, Split, Task
from mtl_gym.problems.scores import relative_gain
from mtl_gym.training.references import average_references

NOISE = {"noise": (0.4, 0.4)}
SETTINGS = {
    "digits": {"tasks": ["digit", "loop", "angle", "clean"], "main_task": "loop", "holdout_size": 250},
    "multimnist": {"main_task": "bottom_right", "holdout_size": 600, "batch_size": 6},
    "stereo": {"main_task": "normals", "holdout_size": 125, "batch_size": 6},
}
"""Small settings of a problem of each network family, whose main task is not the problem's first; all of *meta* is held out."""


def trainer_of(problem="digits", ids=(0, 1, 2), **others):
    return make_trainer(problem, ids, SAMPLE_WEIGHTING, **others)


def decision_of(problem="digits", ids=(0, 1, 2), **others):
    """A decision on trainings that have begun."""
    trainer = trainer_of(problem, ids, begin=False, **others)
    modes = {"action": "weights", "features": None, "sharpness": 10.0, "num_quantiles": 4}
    recipe = trainer.recipe
    decision = SampleWeights(trainer, 1, SampleWeighing(batch_size=recipe.batch_size, num_tasks=recipe.num_tasks, **modes))
    trainer.begin(range(len(ids)), ids)
    decision.begin(range(len(ids)))
    return decision


def look(decision, names):
    """What the next batch shows; nobody pays for it."""
    return decision.observe(names).values


def decide(decision, weights, active=None):
    """One step with weights (N, B, K) of the samples, in the active rows (all)."""
    active = everyone(decision.trainer) if active is None else torch.tensor(active)
    decision.apply(weights.flatten(1), active, None)


def env_of(problem="digits", **others):
    return make_vec(problem, env_id=SAMPLE_WEIGHTING, **{"autoreset_mode": "Disabled"} | others)


def everyone(trainer):
    return torch.ones(trainer.num_replicas, dtype=torch.bool)


def batch_of(trainer, row=0):
    """The samples of the batch that a row is about to be trained on."""
    instance, step = trainer.ledger.instances[row], int(trainer.ledger.step[row])
    return instance.order(trainer.recipe.batch_size, step + 1)[step].astype(np.int64)


def holed(problem="digits", share=0.6, seed=0):
    """The problem with labels of every task missing at random in *train*."""
    split, rng = load_problem(problem).splits["train"], np.random.default_rng(seed)
    targets = split.targets.clone()
    for own in load_problem(problem).target_slices:
        targets[torch.from_numpy(rng.random(len(split)) > share), own] = torch.nan
    return with_splits(problem, train=Split(split.inputs, targets))


# --- by hand: losses and gradients of one sample after the other --------------------------------------------------------


def loss_of(task, outputs, targets):
    """A task's loss on one sample, from outputs (C, *S) and targets (T, *S) with NaN where a label is missing."""
    known, filled = ~torch.isnan(targets), targets.nan_to_num()
    if task.loss == "cross_entropy":
        return -outputs.log_softmax(0).gather(0, filled.long())[known].mean()
    if task.loss == "cosine":
        outputs, filled = outputs[:, known.all(0)], filled[:, known.all(0)]
        return 1 - ((outputs * filled).sum(0) / (outputs.norm(dim=0) * filled.norm(dim=0))).mean()
    errors = {
        "bce": lambda: functional.binary_cross_entropy_with_logits(outputs, filled, reduction="none"),
        "mse": lambda: (outputs - filled) ** 2,
        "l1": lambda: (outputs - filled).abs(),
    }[task.loss]()
    return torch.stack([own[mask].mean() for own, mask in zip(errors, known, strict=True) if mask.any()]).mean()


class ByHand:
    """A row of a trainer in float64: losses and gradients of the shared parameters, sample by sample and task by task."""

    def __init__(self, trainer, row):
        self.model, self.problem, self.instance = trainer.model, trainer.problem, trainer.ledger.instances[row]
        self.named = {name: part.detach().double().requires_grad_() for name, part in own_parameters(trainer, row).items()}
        self.parameters = [*self.named.values()]
        self.shared = self.parameters[: trainer.model.shared]
        self.samples = batch_of(trainer, row)

    def outputs(self, inputs):
        return self.model.forward({name: part[None] for name, part in self.named.items()}, {}, inputs.double()[None])[0][0]

    def losses(self):
        """(B, K), with the instance's scales, of the labels that the samples bear; 0 where there is none."""
        split, source = self.problem.splits["train"], self.instance.label_source(self.problem).astype(np.int64)
        outputs, rows = self.outputs(split.inputs[self.samples]), []
        for own, sample in zip(outputs, self.samples, strict=True):
            for task, scale in zip(self.instance.tasks, self.instance.scales, strict=True):
                labels = split.targets[source[sample, task], self.problem.target_slices[task]].double()
                known = bool((~labels.isnan()).any())
                channels = own[self.problem.output_slices[task]]
                rows.append(float(scale) * loss_of(self.problem.tasks[task], channels, labels) if known else own.sum() * 0)
        return torch.stack(rows).view(len(self.samples), -1)

    @functools.cached_property
    def direction(self):
        """The gradient of the main task's mean loss over all of *meta*, with norm 1."""
        main, split = self.instance.tasks[0], self.problem.splits["meta"]
        outputs = self.outputs(split.inputs)[:, self.problem.output_slices[main]]
        labels = split.targets[:, self.problem.target_slices[main]].double()
        task = self.problem.tasks[main]
        gradient = self.gradient(torch.stack([loss_of(task, *pair) for pair in zip(outputs, labels, strict=True)]).mean())
        return gradient / gradient.norm()

    def gradient(self, loss):
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, self.shared, retain_graph=True)])

    @functools.cached_property
    def gradients(self):
        """(B, K, P)."""
        return torch.stack([torch.stack([self.gradient(loss) for loss in losses]) for losses in self.losses()])


@pytest.fixture(scope="module", params=SETTINGS)
def looked(request):
    """Trainings with wrong labels and scales, what is said of their next batch in the middle, and the same by hand."""
    distribution = NOISE | {"scale": (0.2, 5.0)}
    decision = decision_of(request.param, ids=(3, 4), distribution=distribution, **SETTINGS[request.param])
    train(decision.trainer, 2)
    return decision.trainer, look(decision, {LOSS, ALIGNMENT, COSINE, MAIN}), ByHand(decision.trainer, 1)


def assert_near(value, expected):
    """Equal to 1e-5 of the largest."""
    assert value.shape == expected.shape
    assert (value.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_losses_are_those_of_single_samples(looked):
    _, seen, by_hand = looked
    assert_near(seen[LOSS][1], by_hand.losses().detach())


def test_alignments_are_those_of_a_loop_over_samples_and_tasks(looked):
    _, seen, by_hand = looked
    assert_near(seen[ALIGNMENT][1], by_hand.gradients @ by_hand.direction)


def test_cosines_are_those_of_a_loop_over_samples_and_tasks(looked):
    _, seen, by_hand = looked
    gradients = by_hand.gradients
    cosines = gradients @ by_hand.direction / gradients.norm(dim=2)
    assert_near(seen[COSINE][1], cosines.nan_to_num())  # 0 where a sample has no gradient


def test_the_main_loss_is_that_on_meta(looked):
    trainer, seen, _ = looked
    names = [task.name for task in trainer.problem.tasks]
    assert trainer.ledger.tasks[:, 0].tolist() == [names.index(trainer.recipe.main_task)] * 2
    torch.testing.assert_close(seen[MAIN], trainer.losses.held_out(["meta"])["meta"][:, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("needs", [{LOSS}, {ALIGNMENT}, {COSINE, MEAN, RIGHT, MAIN}])
def test_looking_does_not_change_the_training(needs):
    looking, plain = decision_of(distribution=NOISE), trainer_of(distribution=NOISE)
    for _ in range(3):
        look(looking, needs)
        train(looking.trainer, 1)
    train(plain, 3)
    assert same(looking.trainer.replicas.flat, plain.replicas.flat)


@pytest.mark.parametrize(
    ("needs", "cost"),
    [([LOSS, MEAN, RIGHT, LABELLED], [0, 0]), ([ALIGNMENT], [2, 1]), ([MAIN], [2, 1]), ([ALIGNMENT, COSINE], [2, 1 + 16 * 5])],
)
def test_looking_costs_once_and_changes_nothing_else(needs, cost):
    decision = decision_of()
    trainer = train(decision.trainer, 2)
    before = trainer.clone()
    readings = [decision.observe(needs) for _ in range(2)]
    for reading, expected in zip(readings, (cost, [0, 0]), strict=True):
        assert list(reading.values) == list(needs)
        passes = torch.stack([torch.as_tensor(own).float().expand(3) for own in reading[1:]], dim=1)
        assert passes.tolist() == [expected] * 3
    after = trainer.clone()
    marks = {name for name in before if name.startswith("charged ")}
    changed = {name for name in marks if not same(before[name], after[name])}
    wanted = {"charged alignments"} if {ALIGNMENT, MAIN} & {*needs} else set()
    assert changed == wanted | ({"charged cosines"} if COSINE in needs else set())
    assert same(*({name: own for name, own in state.items() if name not in marks} for state in (before, after)))


def test_looking_is_paid_once_by_the_charged_alone():
    decision = decision_of()
    trainer = train(decision.trainer, 2)
    before = trainer.ledger.passes.clone()
    for _ in range(2):
        _, forward, backward = decision.observe([ALIGNMENT, COSINE])
        trainer.ledger.charge(torch.tensor([True, False, True]), forward, backward)
    assert (trainer.ledger.passes - before).tolist() == [[2, 81], [0, 0], [2, 81]]


def test_without_hidden_layers_nothing_is_aligned():
    seen = look(decision_of(hidden_sizes=[]), {ALIGNMENT, COSINE})
    assert not any(values.any() for values in seen.values())


def test_a_sample_without_a_label_has_no_loss_and_no_alignment():
    decision = decision_of(holed(), ids=(1,), tasks=["digit", "angle"])
    seen = look(decision, {LOSS, ALIGNMENT})
    labels = decision.trainer.problem.splits["train"].targets[batch_of(decision.trainer)][:, [0, 3]]
    for values in seen.values():
        assert ((values[0] == 0) == labels.isnan()).all()


# --- weights ------------------------------------------------------------------------------------------------------------


def half_known():
    """The digits with half of the clean image missing in every other sample of *train*."""
    split, own = load_problem("digits").splits["train"], load_problem("digits").target_slices[4]
    targets = split.targets.clone()
    targets[::2, own.start : own.start + 32] = torch.nan
    return with_splits("digits", train=Split(split.inputs, targets))


@pytest.mark.parametrize("problem", ["digits", "holed", "half known", "multimnist", "stereo"])
def test_weights_of_ones_are_the_plain_training(problem):
    made = {"holed": holed, "half known": half_known}
    loaded, steps = made.get(problem, lambda: load_problem(problem))(), 2 if problem in ("multimnist", "stereo") else 6
    plain, sampled = train(make_trainer(loaded), steps), train(trainer_of(loaded), steps)
    for name in ("parameters", "losses", "weights"):
        torch.testing.assert_close(sampled.state[name], plain.state[name], rtol=1e-3, atol=1e-5)
    assert plain.ledger.passes.tolist() == sampled.ledger.passes.tolist()


def test_a_batch_without_a_label_of_a_task_has_its_last_known_loss():
    split, order = load_problem("digits").splits["train"], trainer_of(ids=(3,)).ledger.instances[0].order(16, 8)
    targets = split.targets.clone()
    targets[order[[0, 4]].flatten().astype(np.int64), 1] = torch.nan  # of parity, in the first and the fifth batch
    problem = with_splits("digits", train=Split(split.inputs, targets))
    plain, sampled = make_trainer(problem, ids=(3,)), trainer_of(problem, ids=(3,))
    for trainer in (plain, sampled):
        trainer.losses.drawn.batches.order[0, [0, 4]] = torch.from_numpy(order[[0, 4]])  # which would have been completed
        train(trainer, 6)
    torch.testing.assert_close(sampled.losses.history, plain.losses.history, rtol=1e-3, atol=1e-5)
    assert sampled.losses.history[0, 4, 1] == sampled.losses.history[0, 3, 1] > 0
    assert sampled.losses.forward()[0].tolist() == pytest.approx(plain.losses.forward()[0].tolist(), rel=1e-3)


@pytest.mark.parametrize("problem", ["digits", "holed", "stereo"])
def test_a_step_descends_the_weighted_mean_of_the_samples_losses(problem):
    arguments = SETTINGS.get(problem, SETTINGS["digits"]) | {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "distribution": NOISE}
    trainer = trainer_of(holed() if problem == "holed" else problem, ids=(3, 4), **arguments)
    by_hand, rng = ByHand(trainer, 1), np.random.default_rng(0)
    shape = (2, trainer.recipe.batch_size, trainer.recipe.num_tasks)
    weights = torch.from_numpy(rng.exponential(size=shape)) * torch.from_numpy(rng.random(shape) < 0.7)
    losses = by_hand.losses()
    labelled = losses != 0
    total = (weights[1] * losses).sum(0) / labelled.sum(0)
    gradients = torch.autograd.grad(total.sum(), by_hand.parameters)
    trainer.update_samples(weights.float(), everyone(trainer))
    expected = torch.cat([(own - 0.1 * part).flatten() for own, part in zip(by_hand.parameters, gradients, strict=True)])
    assert_near(trainer.replicas.flat[1], expected.detach())
    means = (weights[1] * labelled).sum(0) / labelled.sum(0)
    torch.testing.assert_close(trainer.weights[1, 0].double(), means)
    torch.testing.assert_close(
        trainer.losses.history[1, 0].double(), (losses.sum(0) / labelled.sum(0)).detach(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weights_of_zeros_skip_the_update_and_count_the_step(optimizer):
    trainer = train(trainer_of(optimizer=optimizer, weight_decay=0.1), 2)
    before = trainer.clone()
    weights = torch.ones(3, 16, 5)
    weights[1] = 0
    trainer.update_samples(weights, everyone(trainer))
    after = trainer.clone()
    moved = ("parameters", "moments", "updates")
    assert same([before[name][1] for name in moved], [after[name][1] for name in moved])
    assert not any(torch.equal(before[name][row], after[name][row]) for name in moved for row in (0, 2))
    assert after["step"].tolist() == [3, 3, 3]
    assert (after["losses"][1, 2] > 0).all()
    assert not after["weights"][1, 2].any()


def test_steps_without_a_weight_are_said():
    env = env_of(action="weights", steps_per_action=1)
    actions = np.ones((3, 16 * 5), dtype=np.float32)
    actions[1] = 0
    actions[2, 1:] = 0
    env.reset(seed=0)
    before = env.decision.trainer.clone()
    *_, infos = env.step(actions)
    assert infos["skipped"].tolist() == [0, 1, 0]
    assert same(rows_of(before, [1])["parameters"], rows_of(env.decision.trainer.clone(), [1])["parameters"])
    assert infos["forward"][1] == infos["forward"][0]
    assert env.decision.trainer.ledger.step.tolist() == [1, 1, 1]


def test_weights_of_samples_are_applied_as_they_are():
    env = env_of(action="weights", steps_per_action=1, optimizer="sgd", momentum=0.0, tasks=["digit", "angle"])
    env.reset(options={"instance": [4, 5, 6]})
    trainer = trainer_of(ids=(4, 5, 6), optimizer="sgd", momentum=0.0, tasks=["digit", "angle"])
    actions = random_actions(env.action_space, 1)[0].clip(0)
    env.step(actions)
    trainer.update_samples(torch.from_numpy(actions).view(3, 16, 2), everyone(trainer))
    assert same(env.decision.trainer.replicas.flat, trainer.replicas.flat)


# --- rules and quantiles ------------------------------------------------------------------------------------------------

BATCH, TASKS = 9, 3


def weighing(action="rule", batch_size=BATCH, num_tasks=TASKS, **others):
    given = {"features": None, "sharpness": 10.0, "num_quantiles": 4, **others}
    return SampleWeighing(action=action, batch_size=batch_size, num_tasks=num_tasks, **given)


def samples_of(seed, batch_size=BATCH, num_tasks=TASKS, rows=2):
    """What a trainer may say of a batch."""
    rng, shape = np.random.default_rng(seed), (rows, batch_size, num_tasks)
    tables = {LOSS: rng.exponential(size=shape), MEAN: rng.exponential(size=shape), ALIGNMENT: rng.normal(size=shape)}
    tables[LABELLED] = np.ones(shape)
    return {name: torch.from_numpy(values) for name, values in tables.items()}


def by_hand(actions, samples, sharpness=10.0):
    """The weights of a rule with all features, one sample after the other."""
    table = np.empty(samples[LOSS].shape)
    for (row, sample, task), _ in np.ndenumerate(table):
        losses, means = samples[LOSS][row, :, task].numpy(), samples[MEAN][row, :, task].numpy()
        aligned = samples[ALIGNMENT][row].numpy()
        features = [
            2 * (scipy.stats.rankdata(losses)[sample] - 1) / (len(losses) - 1) - 1,
            2 * (scipy.stats.rankdata(means)[sample] - 1) / (len(losses) - 1) - 1,
            np.tanh(aligned[sample, task] / np.sqrt((aligned**2).mean())),
            1 if task == 0 else -1,
        ]
        table[row, sample, task] = 1 / (1 + np.exp(-sharpness * (actions[row, 0] + actions[row, 1:] @ features)))
    return table / table.mean((1, 2), keepdims=True)


@given(seed=st.integers(0, 2**16), sharpness=st.floats(0.1, 10))
@settings(max_examples=10, deadline=None)
def test_a_rule_is_a_sigmoid_of_its_features(seed, sharpness):
    samples, actions = samples_of(seed), np.random.default_rng(seed).uniform(-1, 1, (2, 5))
    weights = weighing(sharpness=sharpness).weights(torch.from_numpy(actions), samples)
    np.testing.assert_allclose(weights, by_hand(actions, samples, sharpness), rtol=1e-6)


def test_a_rule_takes_the_features_that_it_is_told():
    samples, actions = samples_of(0), np.zeros((2, 5))
    actions[:, [0, 3]] = 0.3, -0.7
    chosen = weighing(features=["alignment"]).weights(torch.from_numpy(actions[:, [0, 3]]), samples)
    np.testing.assert_allclose(chosen, by_hand(actions, samples), rtol=1e-6)


@given(seed=st.integers(0, 2**16), quantiles=st.integers(1, BATCH))
@settings(max_examples=20, deadline=None)
def test_a_quantile_holds_the_samples_with_the_next_larger_losses(seed, quantiles):
    samples, rng = samples_of(seed), np.random.default_rng(seed)
    actions = rng.permuted(np.linspace(-1, 1, TASKS * quantiles)[None].repeat(2, 0), axis=1)
    weights = weighing("quantiles", num_quantiles=quantiles).weights(torch.from_numpy(actions), samples).numpy()
    logits = 10 * actions.reshape(2, TASKS, quantiles)
    for row, task in np.ndindex(2, TASKS):
        ascending = weights[row, samples[LOSS][row, :, task].argsort(), task]
        values, counts = (
            ascending[np.r_[True, np.diff(ascending) != 0]],
            np.diff(np.r_[np.flatnonzero(np.r_[True, np.diff(ascending) != 0]), BATCH]),
        )
        assert len(values) == quantiles
        assert counts.max() - counts.min() <= 1
        np.testing.assert_allclose(values / values[0], np.exp(logits[row, task] - logits[row, task, 0]), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 3, 7, 10, 16, 30, 64, 100])
def test_quantiles_hold_equally_many_samples(batch_size):
    for quantiles in {1, 2, 3, 4, 5, 7, 10, batch_size - 1, batch_size}:
        if not 1 <= quantiles <= batch_size:
            continue
        mode = weighing("quantiles", batch_size=batch_size, num_tasks=1, num_quantiles=quantiles, sharpness=1.0)
        samples = {LOSS: torch.rand(1, batch_size, 1), LABELLED: torch.ones(1, batch_size, 1)}
        weights = mode.weights(torch.linspace(-1, 1, quantiles)[None], samples)
        _, counts = weights.unique(return_counts=True)
        assert len(counts) == quantiles
        assert counts.max() - counts.min() <= 1, (batch_size, quantiles, counts)


MODES = [("rule", 5), ("quantiles", 4 * TASKS)]


@pytest.mark.parametrize(("action", "length"), MODES)
@given(seed=st.integers(0, 2**16), extreme=st.booleans())
@settings(max_examples=25, deadline=None)
def test_weights_are_positive_and_average_one(action, length, seed, extreme):
    actions = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (2, length))).float()
    samples = {name: values.float() for name, values in samples_of(seed).items()}
    weights = weighing(action).weights(actions.sign() if extreme else actions, samples)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.mean((1, 2)), torch.ones(2))


@pytest.mark.parametrize(("action", "length"), MODES)
def test_an_action_of_zeros_is_equal_weighting(action, length):
    torch.testing.assert_close(
        weighing(action).weights(torch.zeros(2, length).double(), samples_of(0)), torch.ones(2, BATCH, TASKS).double()
    )


@pytest.mark.parametrize(("action", "length"), MODES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_permuting_the_samples_permutes_the_weights(action, length, seed):
    actions, order = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (2, length))), torch.randperm(BATCH)
    samples, mode = samples_of(seed), weighing(action)
    moved = {name: values[:, order] for name, values in samples.items()}
    torch.testing.assert_close(mode.weights(actions, moved), mode.weights(actions, samples)[:, order])


def test_the_features_that_are_observed_are_those_of_the_batch_that_the_rule_weighs():
    names = [f"{name}_feature" for name in FEATURES]
    env = env_of(observe=names, distribution=NOISE, tasks=["digit", "parity", "angle"])
    observations, _ = env.reset(seed=0)
    action = random_actions(env.action_space, 1)[0]
    logits = 10 * (action[:, :1] + sum(action[:, [1 + place]] * observations[name] for place, name in enumerate(names)))
    weights = 1 / (1 + np.exp(-logits.astype(float)))
    weights = (weights / weights.mean(1, keepdims=True)).reshape(3, 16, 3)
    env.step(action)
    np.testing.assert_allclose(env.decision.trainer.weights[:, 0], weights.mean(1), rtol=1e-4)


@pytest.mark.parametrize(("features", "backward"), [(["rank", "mean", "main"], 8), (["rank", "alignment"], 8 + 9)])
def test_only_alignments_need_a_gradient_of_held_out_data(features, backward):
    env = env_of(observe=["progress"], reward="none", features=features)
    infos = play(env, random_actions(env.action_space, 2))[-1][-1]
    assert infos["backward"].tolist() == [backward] * 3


@pytest.mark.parametrize(("action", "steps"), [("rule", 4), ("quantiles", 4), ("weights", 1)])
def test_clipped_counts_the_entries_on_a_bound_but_no_weight_of_zero(action, steps):
    env = env_of("quadratic", action=action, steps_per_action=steps)
    chosen = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    chosen[1, 0], chosen[2, :2] = env.single_action_space.high[0], env.single_action_space.low[0]
    assert play(env, [chosen])[-1][-1]["clipped"].tolist() == [0, 1, 0 if action == "weights" else 2]


# --- right and wrong labels ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_the_separation_is_that_of_the_labelled_samples(seed):
    rng = np.random.default_rng(seed)
    weights, right, labelled = rng.random((1, 9, 1)), rng.integers(0, 2, (1, 9, 1)), rng.integers(0, 2, (1, 9, 1))
    found = separation(*(torch.from_numpy(own).double() for own in (weights * labelled, right * labelled, labelled)))
    few = labelled[0, :, 0] > 0
    expected = separation(*(torch.from_numpy(own[:, few]).double() for own in (weights, right, labelled)))
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)


@given(data=st.data(), count=st.integers(2, 12), levels=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_separation_is_the_area_under_the_curve(data, count, levels):
    weights = np.array(data.draw(st.lists(st.integers(0, levels), min_size=count * 2, max_size=count * 2))).reshape(1, count, 2) / 3
    right = np.array(data.draw(st.lists(st.booleans(), min_size=count * 2, max_size=count * 2))).reshape(1, count, 2)
    right_ones = torch.from_numpy(right).double()
    tables = separation(torch.from_numpy(weights), right_ones, torch.ones_like(right_ones))
    scaled = weights / max(weights.mean(), 1e-30)
    for task in range(2):
        kinds = right[0, :, task]
        found = {name: float(table[0, task]) for name, table in tables.items()}
        if kinds.all() or not kinds.any():
            assert all(np.isnan(value) for value in found.values())
            continue
        assert found["auc"] == pytest.approx(roc_auc_score(kinds, weights[0, :, task]))
        assert found["right"] == pytest.approx(scaled[0, kinds, task].mean())
        assert found["wrong"] == pytest.approx(scaled[0, ~kinds, task].mean())


SAID = ("right_weight", "wrong_weight", "auc")


def test_infos_say_nothing_of_labels_that_are_all_right():
    env = env_of()
    infos = play(env, random_actions(env.action_space, 1))[-1][-1]
    assert all((infos[name] == -1).all() for name in SAID)
    scalar = make(env_id=SAMPLE_WEIGHTING)
    info = play(scalar, random_actions(scalar.action_space, 1))[-1][-1]
    assert all(info[name] == -1 for name in SAID)


def test_infos_say_how_far_right_labels_outweigh_wrong_ones():
    env = env_of(action="weights", steps_per_action=1, observe=["label_right"], distribution=NOISE, tasks=["digit", "angle"])
    observations, _ = env.reset(seed=1)
    right = observations["label_right"].reshape(3, 16, 2)
    actions = right.copy()
    actions[1] = 1 - right[1]
    actions[2] = 1
    *_, infos = env.step(actions.reshape(3, -1))
    assert infos["auc"].tolist() == [1.0, 0.0, 0.5]
    np.testing.assert_allclose(infos["right_weight"], [1 / right[0].mean(), 0, 1], rtol=1e-6)
    np.testing.assert_allclose(infos["wrong_weight"], [0, 1 / (1 - right[1]).mean(), 1], rtol=1e-6)


def test_infos_are_of_the_main_task_alone():
    env = env_of(distribution={"unrelated": (1.0, 1.0)}, tasks=["digit", "parity"])
    infos = play(env, random_actions(env.action_space, 1))[-1][-1]
    assert (infos["auc"] == -1).all()
    assert torch.isfinite(env.decision.traces["auc"][:, 1]).all()


def test_a_label_is_right_if_it_is_the_true_one_whoever_it_came_from():
    decision = decision_of(distribution={"noise": (0.5, 0.5)}, ids=(7,), tasks=["digit", "clean"])
    right, trainer = look(decision, {RIGHT})[RIGHT][0], decision.trainer
    source, samples = trainer.ledger.instances[0].label_source(trainer.problem), batch_of(trainer)
    targets = trainer.problem.splits["train"].targets
    for column, task in enumerate([0, 4]):
        own = trainer.problem.target_slices[task]
        expected = (targets[samples][:, own] == targets[source[samples, task].astype(np.int64)][:, own]).all(1)
        assert right[:, column].tolist() == expected.float().tolist()


def half_labelled(*, noise, own=(0.0, np.nan, 1.0, np.nan)):
    """A decision on the first batch of a problem of one task, with these labels in turn."""
    rng = np.random.default_rng(0)
    count = 16

    def split(labels):
        return Split.of(rng.normal(size=(count, 2)), [np.resize(labels, count)])

    splits = {"train": split(own), **{name: split([0.0, 1.0]) for name in ("meta", "reward", "test")}}
    problem = Problem("halves", [Task("half", "bce", ("accuracy",))], splits)
    return decision_of(problem, ids=(3,), distribution={"noise": (noise, noise)}, batch_size=16, holdout_size=16)


def test_an_unlabelled_sample_bears_no_other_label_and_is_not_right():
    decision = half_labelled(noise=0.9)
    right = look(decision, {RIGHT})[RIGHT][0, :, 0]
    trainer = decision.trainer
    samples = batch_of(trainer)
    source = trainer.ledger.instances[0].label_source(trainer.problem)[samples, 0]
    targets = trainer.problem.splits["train"].targets[:, 0]
    own, borne = targets[samples], targets[source.astype(np.int64)]
    assert (own.isnan() == borne.isnan()).all()
    assert (source != samples).any()
    assert right.tolist() == (own == borne).float().tolist()
    assert look(decision, {LABELLED})[LABELLED][0, :, 0].tolist() == (~borne.isnan()).float().tolist()


def test_without_noise_the_labelled_samples_are_right():
    seen = look(half_labelled(noise=0.0), {RIGHT, LABELLED})
    assert seen[RIGHT].sum() == 8
    assert same(seen[RIGHT], seen[LABELLED])


def test_the_labels_that_are_there_are_observed():
    env = env_of(holed(), observe=["sample_labelled", "sample_log_loss"], tasks=["digit", "angle"])
    observations, _ = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    known = observations["sample_labelled"]
    assert set(np.unique(known)) == {0, 1}
    np.testing.assert_array_equal(known == 0, observations["sample_log_loss"] < -27.6)
    assert "sample_labelled" not in specification(SAMPLE_WEIGHTING).observe
    complete, _ = env_of(observe=["sample_labelled"]).reset(seed=0)
    assert (complete["sample_labelled"] == 1).all()


@pytest.mark.parametrize(("action", "length"), [("rule", 5), ("quantiles", 4 * 3)])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_weights_are_those_of_the_labelled_samples_alone(action, length, seed):
    rng = np.random.default_rng(seed)
    samples = samples_of(seed, rows=1)
    labelled = np.zeros((1, BATCH, TASKS))
    labelled[:, :6] = 1  # the last three samples have no label at all, with losses of 0
    masked = {name: values * torch.from_numpy(labelled) for name, values in samples.items()}
    actions = torch.from_numpy(rng.uniform(-1, 1, (1, length)))
    found = weighing(action).weights(actions, masked)
    few = {name: values[:, :6] for name, values in samples.items()}
    np.testing.assert_allclose(found[:, :6], weighing(action, batch_size=6).weights(actions, few), rtol=1e-6)
    assert not found[:, 6:].any()


def test_ranks_are_those_among_the_labelled():
    losses, labelled = torch.tensor([0.0, 3.0, 0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    assert ranks(losses[None, :, None], labelled[None, :, None])[0, :, 0].tolist() == [0, 1, 0, -1, 0]


def test_a_weight_without_a_label_trains_nothing():
    env = env_of(holed(), action="weights", steps_per_action=1, observe=["sample_labelled"], tasks=["digit", "angle"])
    observations, _ = env.reset(seed=0)
    before = env.decision.trainer.replicas.flat.clone()
    *_, infos = env.step(1 - observations["sample_labelled"])
    assert infos["skipped"].tolist() == [1, 1, 1]
    assert same(before, env.decision.trainer.replicas.flat)


def test_which_labels_are_right_is_never_seen_unless_it_is_asked_for(monkeypatch):
    env, blind = (env_of(distribution="noisy", tasks=["digit", "parity", "loop"]) for _ in range(2))
    actions = random_actions(env.action_space, 2)
    sighted = play(env, actions, seed=2)
    monkeypatch.setattr(SampleWeights, "_right", lambda decision: torch.ones(3, 16, 3))
    blinded = play(blind, actions, seed=2)
    assert same([answer[:-1] for answer in sighted], [answer[:-1] for answer in blinded])
    assert differing(sighted[1][-1], blinded[1][-1])
    assert same(env.decision.trainer.replicas.flat, blind.decision.trainer.replicas.flat)


def test_the_default_observations_do_not_reveal_a_planted_scale():
    envs = [env_of(distribution={"scale": (scale, scale)}, tasks=["digit", "angle"]) for scale in (1.0, 8.0)]
    actions = random_actions(envs[0].action_space, 1)
    plain, scaled = (play(env, actions, options={"instance": 5}) for env in envs)
    for own, others in zip(plain, scaled, strict=True):
        for name in own[0]:
            np.testing.assert_allclose(own[0][name], others[0][name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_only_the_oracle_is_shown_which_labels_are_right():
    assert "label_right" not in specification(SAMPLE_WEIGHTING).observe
    asking = {name for name in BASELINES if name != "constant" and "label_right" in (make_policy(name).requires.observe or ())}
    assert asking == {"oracle"}


# --- running means ------------------------------------------------------------------------------------------------------


def test_running_means_are_those_of_a_dictionary():
    settings = {"batch_size": 100, "train_steps": 12, "steps_per_action": 2}
    decision = decision_of(distribution={"size": (0.5, 0.5), "noise": (0.3, 0.3)}, **settings)
    known = [{} for _ in range(3)]
    for step in range(9):  # of four an epoch
        active = [True, step != 2, True]
        seen = look(decision, {LOSS, MEAN})
        for row in range(3):
            for place, sample in enumerate(batch_of(decision.trainer, row).tolist()):
                losses = [*known[row].get(sample, []), seen[LOSS][row, place]]
                torch.testing.assert_close(seen[MEAN][row, place], torch.stack(losses).mean(0), rtol=1e-4, atol=1e-6)
                if active[row]:
                    known[row][sample] = losses
        decide(decision, torch.ones(3, 100, 5), active)
    assert {len(losses) for losses in known[0].values()} == {2, 3}


# --- rewards ------------------------------------------------------------------------------------------------------------


def held_out(env):
    return env.decision.trainer.losses.held_out(["reward"])["reward"].double().log().numpy()


@pytest.mark.parametrize("main_task", ["digit", "angle"])
def test_val_mean_pays_the_decline_of_the_main_tasks_log_loss(main_task):
    env = env_of(main_task=main_task, tasks=["digit", "angle", "loop"], distribution={"scale": (0.5, 2.0)})
    env.reset(seed=1)
    before = held_out(env)
    rewards = env.step(random_actions(env.action_space, 1)[0])[1]
    np.testing.assert_allclose(rewards, (before - held_out(env))[:, 0], rtol=1e-4, atol=1e-5)
    assert {env.arguments.problem.tasks[task].name for task in env.decision.trainer.ledger.tasks[:, 0].tolist()} == {main_task}


def gains(env):
    """The main task's relative gains (N,) on *reward*, in percent."""
    names = [f"{env.arguments.recipe.main_task}/{metric}" for task in env.arguments.problem.tasks for metric in task.metrics]
    names = [name for name in env.decision.trainer.metrics("reward") if name in names]
    references = average_references(env.arguments.problem, env.arguments.recipe)
    values = env.decision.trainer.metrics("reward")
    rows = [
        [relative_gain(float(values[name][row]), references[name], name.rsplit("/", 1)[1]) for name in names] for row in range(3)
    ]
    return np.mean(rows, axis=1)


def test_gains_are_of_the_main_task():
    arguments = {"main_task": "angle", "tasks": ["digit", "angle"], "train_steps": 4, "steps_per_action": 2}
    env, at_the_end = env_of(reward="gain", **arguments), env_of(reward="terminal_delta_m", **arguments)
    env.reset(seed=1)
    distances = [np.log((1 - gains(env) / 100).clip(0.05))]
    for action in random_actions(env.action_space, 2):
        rewards = env.step(action)[1]
        distances.append(np.log((1 - gains(env) / 100).clip(0.05)))
        np.testing.assert_allclose(rewards, distances[-2] - distances[-1], rtol=1e-3, atol=1e-5)
    answers = play(at_the_end, random_actions(env.action_space, 2), seed=1)
    assert not answers[1][1].any()
    np.testing.assert_allclose(answers[2][1], gains(at_the_end), rtol=1e-4)


@pytest.mark.parametrize("name", [name for name, row in REWARDS.items() if not row.of_main])
def test_rewards_of_all_tasks_are_refused(name):
    with pytest.raises(
        ValueError,
        match=f"`reward` should be one of val_mean, terminal_delta_m, gain, gain_change, quality, none. Received reward='{name}'",
    ):
        env_of(reward=name)


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING])
@pytest.mark.parametrize("reward", ["val_mean", "gain"])
def test_rewards_of_every_few_decisions_add_up_to_those_of_all(reward, env_id):
    each = {"env_id": env_id, "reward": reward, "train_steps": 8, "steps_per_action": 2, "autoreset_mode": "Disabled"}
    each |= {"main_task": "angle"} if env_id == SAMPLE_WEIGHTING else {}  # whose metric is not a step function
    envs = [make_vec(**each), make_vec(reward_every=4, **each)]
    actions = random_actions(envs[0].action_space, 4)
    often, seldom = (np.stack([answer[1] for answer in play(env, actions)[1:]]) for env in envs)
    assert not seldom[[0, 2]].any()
    assert seldom[[1, 3]].any(0).all()
    np.testing.assert_allclose(seldom[[1, 3]], often.reshape(2, 2, 3).sum(1), rtol=1e-3, atol=1e-5)


def test_rows_out_of_step_are_paid_when_they_are_due():
    settings = {"reward_every": 4, "train_steps": 8, "steps_per_action": 2}
    env, steady = env_of(**settings), env_of(**settings)
    actions, options = random_actions(env.action_space, 4), {"instance": np.array([5, 6, 7])}
    expected = [answer[1] for answer in play(steady, actions, options=options)[1:]]
    play(env, actions[:1], options=options)
    env.reset(options=options | {"reset_mask": np.array([False, True, False])})
    late = [env.step(action)[1][1] for action in actions]
    np.testing.assert_allclose(late, [rewards[1] for rewards in expected], rtol=1e-4, atol=1e-6)


# --- keeping ------------------------------------------------------------------------------------------------------------


def stepped(decision, steps=3):
    """All that follows: what is seen of each batch with its cost, and the state at the end."""
    seen = []
    for _ in range(steps):
        values, *passes = decision.observe([ALIGNMENT, COSINE, MEAN])
        decision.trainer.ledger.charge(everyone(decision.trainer), *passes)
        seen.append((values, [float(torch.as_tensor(own).sum()) for own in passes]))
        decide(decision, values[ALIGNMENT].clamp(min=0))
    return seen, decision.trainer.clone()


@pytest.fixture
def kept():
    """A decision that has looked at the next batch."""
    decision = decision_of(distribution="noisy", batch_size=8, tasks=["digit", "parity", "loop"])
    stepped(decision)
    decision.observe([ALIGNMENT, COSINE])
    return decision


def restored(decision):
    other = decision_of(ids=(7, 8, 9), distribution="noisy", batch_size=8, tasks=["digit", "parity", "loop"])
    other.trainer.load(decision.trainer.clone())
    return other


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda decision: pickle.loads(pickle.dumps(decision)), restored])
def test_a_copy_goes_on_bit_for_bit_and_pays_nothing_twice(kept, clone):
    other = clone(kept)
    assert same(kept.trainer.clone(), other.trainer.clone())
    first, second = stepped(kept), stepped(other)
    assert not differing(first, second)
    assert first[0][0][1] == [0, 0]  # it was looked at before
    assert min(first[0][1][1]) > 0


def test_a_copied_row_goes_its_own_way(kept):
    trainer = kept.trainer
    trainer.copy_rows([0], [2])
    state = trainer.clone()
    assert same(rows_of(state, [0]), rows_of(state, [2]))
    seen, state = stepped(kept)
    assert same(rows_of(state, [0]), rows_of(state, [2]))
    assert all(same(values[0], values[2]) for own in seen for values in own[0].values())
    weights = torch.ones(3, 8, 3)
    weights[2, :4] = 0
    decide(kept, weights)
    assert not torch.equal(trainer.replicas.flat[0], trainer.replicas.flat[2])


def test_a_partial_begin_forgets_what_was_seen_of_the_row_alone():
    decision, fresh = decision_of(distribution=NOISE), decision_of(distribution=NOISE)
    for _ in range(3):
        decide(decision, torch.ones(3, 16, 5))
    look(decision, {ALIGNMENT, MEAN})
    before = decision.trainer.clone()
    decision.trainer.begin([1], [1])
    decision.begin([1])
    assert same(rows_of(before, [0, 2]), rows_of(decision.trainer.clone(), [0, 2]))
    seen, expected = (look(own, {ALIGNMENT, MEAN}) for own in (decision, fresh))
    for name in seen:
        torch.testing.assert_close(seen[name][1], expected[name][1], rtol=1e-4, atol=1e-5)


# --- the heuristics' formulas -------------------------------------------------------------------------------------------

ALIGNMENTS = [[2.0, -1.0, 1.0], [-3.0, 0.0, 4.0], [1.0, 2.0, -1.0], [0.5, -0.5, 1.5]]
"""Of four samples and three tasks."""
LOSSES = [[1.0, 5.0, 0.2], [4.0, 0.5, 0.1], [2.0, 3.0, 0.4], [3.0, 1.0, 0.3]]
COSINES = [0.5, -0.25, 0.75]  # of the pairs (0, 1), (0, 2) and (1, 2)
NORMS = [2.0, 3.0, 0.5]


def observation(losses=LOSSES, alignments=ALIGNMENTS, cosines=COSINES, epoch=0, lr=0.1, right=None):
    """What heuristics see of one batch, in one row."""
    losses, alignments = np.array(losses), np.array(alignments)
    values = {
        "log_loss": np.log(losses.mean(0)),
        "sample_log_loss": np.log(losses),
        "alignment": alignments,
        "label_right": alignments > 0 if right is None else np.array(right),
        "cosines": np.array(cosines),
        "log_norms": np.log(NORMS),
        "epoch": np.array([epoch]),
        "lr": np.array([lr]),
    }
    return {name: own.reshape(1, -1).astype(np.float32) for name, own in values.items()}


def answers(text, *batches):
    """A policy's weights (B, K) for one batch after the other."""
    policy, memory, found = make_policy(text), None, []
    for batch in batches:
        action, memory = policy.predict(batch, memory)
        found.append(action.reshape(-1, 3))
    return found


MASK = (np.array(ALIGNMENTS) > 0).astype(float)
SLOPES = 1 / (np.mean(LOSSES, axis=0) + 0.02)  # of log(L + .02)
GOLDEN = {
    "uniform": np.ones((4, 3)),
    "main": [[1, 0, 0]] * 4,
    # the positive parts sum to 12 over twelve weights: they average 1 already
    "slgrad": np.clip(ALIGNMENTS, 0, None),
    "slgrad:norm=sum": np.clip(ALIGNMENTS, 0, None) / 12,
    # 2 + 1 + 0.5 over four samples of the main task
    "l2rw": [[8 / 3.5, 0, 0], [0, 0, 0], [4 / 3.5, 0, 0], [2 / 3.5, 0, 0]],
    "gcs": [[1, 0.5, 0]] * 4,
    "ol-aux": [SLOPES] * 4,  # before its first window of five batches
    "ol-aux:window=1": [SLOPES * [1, *(1 + 5 * 0.1 * SLOPES[0] * SLOPES[1:] * [0.5 * 2 * 3, -0.25 * 2 * 0.5])]] * 4,
    "ol-aux:of=loss": np.ones((4, 3)),
    "ol-aux:of=loss:window=1:beta=1": [[1, 1 + 0.1 * 0.5 * 2 * 3, 1 - 0.1 * 0.25 * 2 * 0.5]] * 4,
    "ol-aux:of=loss:window=1:beta=100": [[1, 1 + 100 * 0.1 * 0.5 * 2 * 3, 0]] * 4,
    "small-loss": np.ones((4, 3)),  # in the first epoch
    # half of each task is below the median
    "self-paced": [[2, 0, 2], [0, 2, 2], [2, 0, 0], [0, 2, 0]],
    "ohem": [[0, 4, 0], [4, 0, 0], [0, 0, 4], [0, 0, 0]],
    "ohem:keep=0.5": [[0, 2, 0], [2, 0, 0], [0, 2, 2], [2, 0, 2]],
    "ohem:keep=0.6": [[0, 4 / 3, 4 / 3], [4 / 3, 0, 0], [4 / 3, 4 / 3, 4 / 3], [4 / 3, 4 / 3, 4 / 3]],
    "focal": (1 - np.exp(-np.array(LOSSES))) ** 2,
    "focal:gamma=0": np.ones((4, 3)),
    "focal:gamma=0.5": (1 - np.exp(-np.array(LOSSES))) ** 0.5,
    "oracle": 12 / 7 * MASK,
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_values(text):
    np.testing.assert_allclose(answers(text, observation())[0], GOLDEN[text], rtol=1e-5, atol=1e-7)


def test_every_heuristic_of_samples_has_a_golden_value():
    names = {name for name in BASELINES if environment_of(name) == SAMPLE_WEIGHTING}
    assert names == {text.partition(":")[0] for text in GOLDEN}


@pytest.mark.parametrize("text", ["slgrad", "slgrad:norm=sum", "l2rw"])
def test_a_batch_without_an_aligned_sample_is_skipped(text):
    assert not answers(text, observation(alignments=-np.abs(ALIGNMENTS)))[0].any()


def test_an_oracle_without_a_right_label_skips_the_batch():
    assert not answers("oracle", observation(right=np.zeros((4, 3))))[0].any()


def test_ol_aux_moves_its_weights_once_a_window_by_the_inner_products_in_it():
    batches = [observation(cosines=[cosine, -cosine, 0.9], lr=0.01) for cosine in (0.1, 0.2, -0.4, 0.8, 0.6)]
    found = answers("ol-aux:of=loss:window=2:beta=3", *batches)
    first, second = np.ones(2), 1 + 0.01 * 3 * (0.1 + 0.2) * 2 * np.array([3, -0.5])
    third = second + 0.01 * 3 * (-0.4 + 0.8) * 2 * np.array([3, -0.5])
    for weights, expected in zip(found, (first, second, second, third, third), strict=True):
        np.testing.assert_allclose(weights, [[1, *expected]] * 4, rtol=1e-5)


def test_small_loss_keeps_fewer_and_fewer():
    found = answers("small-loss:rate=0.5:ramp=4", *[observation(epoch=epoch) for epoch in (0, 1, 2, 4, 9)])
    kept = [np.ceil(4 * share) for share in (1, 1 - 0.5 / 4, 1 - 0.5 / 2, 0.5, 0.5)]
    for weights, count in zip(found, kept, strict=True):
        np.testing.assert_allclose(weights, 4 / count * (scipy.stats.rankdata(LOSSES, axis=0) <= count), rtol=1e-6)


def test_self_paced_raises_its_first_threshold_with_every_epoch():
    batch = [[1.0, 8.0, 0.1], [2.0, 9.0, 0.2], [3.0, 10.0, 0.3], [4.0, 11.0, 0.4], [5.0, 12.0, 0.5]]  # medians 3, 10 and 0.3
    later = [[3.1, 1.0, 0.1], [3.8, 12.9, 1.0], [4.0, 13.1, 2.0], [9.0, 20.0, 3.0], [9.5, 30.0, 4.0]]
    found = answers(
        "self-paced:growth=1.3", observation(batch, batch), observation(later, batch, epoch=1), observation(later, batch, epoch=3)
    )
    np.testing.assert_allclose(found[0], [[2.5] * 3] * 2 + [[0] * 3] * 3)
    np.testing.assert_allclose(found[1], [[2.5, 2.5, 5], [2.5, 2.5, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])  # below 3.9, 13 and 0.39
    np.testing.assert_allclose(found[2][:, 1], np.array([1, 1, 1, 1, 0]) * 5 / 4)  # below 21.97


def sparse(text, losses=(-27.63, -27.63, -27.63, -0.5, -1.0), **others):
    """The weights (B,) of one task's samples after 20 epochs, of which those with a log loss of log(1e-12) have no label."""
    observed = {"log_loss": np.zeros((1, 1)), "epoch": np.array([[20.0]]), "sample_log_loss": np.array([losses]), **others}
    return make_policy(text).predict(observed)[0][0].tolist()


@pytest.mark.parametrize(
    ("text", "weights"), [("small-loss", [1, 1]), ("self-paced", [1, 1]), ("ohem", [2, 0]), ("ohem:keep=1", [1, 1])]
)
def test_unlabelled_samples_are_neither_chosen_nor_counted(text, weights):
    assert sparse(text) == [0, 0, 0, *weights]
    known = np.array([[0.0, 0.0, 0.0, 1.0, 1.0]])
    assert sparse(text, (5.0, -3.0, 0.0, -0.5, -1.0), sample_labelled=known) == [0, 0, 0, *weights]
    assert sparse(text, (-27.63,) * 5) == [0] * 5


@pytest.mark.parametrize("text", ["slgrad", "l2rw", "oracle"])
def test_weights_average_one_over_the_labelled_samples(text):
    known = np.array([[0.0, 0.0, 0.0, 1.0, 1.0]])
    shown = {"alignment": np.array([[0.0, 0.0, 0.0, 2.0, 6.0]]), "label_right": known, "sample_labelled": known}
    assert sparse(text, **shown) == [0, 0, 0, *([1, 1] if text == "oracle" else [0.5, 1.5])]


def test_self_paced_begins_with_the_first_batch_that_has_labels():
    policy, memory = make_policy("self-paced"), None
    for epoch, losses, expected in [(0, [-27.63] * 4, [0] * 4), (1, [-27.63, 1.0, 2.0, 3.0], [0, 1.5, 1.5, 0])]:
        batch = {"log_loss": np.zeros((1, 1)), "epoch": np.array([[epoch]]), "sample_log_loss": np.array([losses])}
        weights, memory = policy.predict(batch, memory)
        assert weights[0].tolist() == expected


def test_every_heuristic_that_ranks_or_counts_sees_which_labels_are_there():
    asking = {name for name in BASELINES if name != "constant" and "sample_labelled" in (make_policy(name).requires.observe or ())}
    assert asking == {"small-loss", "self-paced", "ohem", "oracle", "slgrad", "l2rw"}


def test_heuristics_train_on_sparse_labels():
    frame = mtl_gym.compare(
        "small-loss,self-paced,ohem,oracle,slgrad", SAMPLE_WEIGHTING, **{"instances": 1, **SMALL, "problem": holed()}
    )
    assert np.isfinite(frame["delta_m"]).all()
    assert not frame["diverged"].any()


def test_self_paced_takes_the_easiest_sample_where_none_is_easy_enough():
    found = answers("self-paced", observation(), observation(np.array(LOSSES) * 1e3))
    np.testing.assert_allclose(found[1], 4 * (scipy.stats.rankdata(LOSSES, axis=0) == 1))


def test_l2rw_is_slgrad_with_one_task():
    def alone(text):
        batch = observation()
        rows = {name: values.reshape(1, 4, 3)[:, :, 0] for name, values in batch.items() if values.size == 12}
        return make_policy(text).predict({**batch, **rows, "log_loss": batch["log_loss"][:, :1]})[0]

    np.testing.assert_allclose(alone("l2rw"), alone("slgrad"), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[
            ("slgrad:norm=max", "norm"),
            ("ol-aux:beta=0", "beta"),
            ("ol-aux:of=logs", "of"),
            ("ol-aux:window=0", "window"),
            ("ol-aux:window=1.5", "window"),
        ],
        *[("small-loss:rate=1", "rate"), ("small-loss:rate=-0.1", "rate"), ("small-loss:ramp=0", "ramp")],
        *[("self-paced:growth=0.9", "growth"), ("ohem:keep=0", "keep"), ("ohem:keep=1.1", "keep"), ("focal:gamma=-1", "gamma")],
        *[("focal:gamma=a", "gamma"), ("oracle:noise=1", "oracle")],
    ],
)
def test_wrong_options_of_heuristics_are_named(text, name):
    with pytest.raises((ValueError, TypeError), match=name):
        make_policy(text)


# --- bad input ----------------------------------------------------------------------------------------------------------


def few(count):
    """The digits with that many samples in *meta*."""
    split = load_problem("digits").splits["meta"]
    return with_splits("digits", meta=Split(split.inputs[:count], split.targets[:count]))


WRONG = [
    ({"main_task": "digits"}, r"`main_task` should be one of digit, parity.*Received main_task='digits'.*Did you mean 'digit'"),
    ({"main_task": "angle", "tasks": ["digit", "loop"]}, r"`main_task` should be one of digit, loop\. Received main_task='angle'"),
    ({"main_task": 3}, r"`main_task` should be one of digit.*Received main_task=3"),
    (
        {"problem": few(LEAST_META - 1), "holdout_size": None},
        r"`problem` should have at least 10 samples in \*meta\*.*Received problem=9",
    ),
    (
        {"holdout_size": 251},
        r"`holdout_size` should be at most 250, the number of samples in the \*meta\* split\. Received holdout_size=251",
    ),
    ({"features": ["rank", "loss"]}, r"`features` should be one of rank, mean, alignment, main\. Received features='loss'"),
    ({"features": ["alignmen"]}, r"Received features='alignmen'\. Did you mean 'alignment'"),
    ({"features": [3]}, r"`features` should be one of rank.*Received features=3"),
    ({"features": []}, r"`features` should name at least one feature, each once\. Received features=\[\]"),
    (
        {"features": ["rank", "rank"]},
        r"`features` should name at least one feature, each once\. Received features=\['rank', 'rank'\]",
    ),
    ({"features": "rank"}, r"`features` should be a list\. Received features='rank'\. A list of one is \[\"rank\"\]"),
    ({"features": 3}, r"`features` should be a list\. Received features=3"),
    ({"sharpness": 0}, r"`sharpness` should be a finite number in \(0, 1e\+06\]\. Received sharpness=0"),
    ({"sharpness": -1.0}, r"`sharpness` should.*Received sharpness=-1\.0"),
    ({"sharpness": float("nan")}, r"`sharpness` should.*Received sharpness=nan"),
    ({"sharpness": "sharp"}, r"`sharpness` should be a number\. Received sharpness='sharp'"),
    ({"num_quantiles": 0}, r"`num_quantiles` should be at least 1\. Received num_quantiles=0"),
    ({"num_quantiles": 2.5}, r"`num_quantiles` should be a whole number\. Received num_quantiles=2\.5"),
    (
        {"num_quantiles": 17, "action": "quantiles"},
        r"`num_quantiles` should be at most 16, the batch size\. Received num_quantiles=17",
    ),
    (
        {"action": "weights"},
        r"`steps_per_action` should be 1 with action=\"weights\"\. Received steps_per_action=4\. Weights of samples",
    ),
    ({"action": "softmax"}, r"`action` should be one of rule, quantiles, weights\. Received action='softmax'"),
    ({"reward_every": 0}, r"`reward_every` should be at least 1\. Received reward_every=0"),
    (
        {"reward_every": 2},
        r"`reward_every` should be a multiple of steps_per_action=4 that divides train_steps=8\. Received reward_every=2",
    ),
    ({"reward_every": 12}, r"`reward_every` should be a multiple of steps_per_action=4 that divides.*Received reward_every=12"),
    ({"rule": "init"}, r"`argument` should be one of action, features, sharpness, num_quantiles.*Received argument='rule'"),
    ({"observe": ["labels_right"]}, r"`observe` should.*Received observe='labels_right'\. Did you mean 'label_right'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[str(number) for number in range(len(WRONG))])
@pytest.mark.parametrize("maker", [make, make_vec])
def test_a_wrong_argument_is_named_with_its_value_and_the_way_out(maker, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        maker(**{"env_id": SAMPLE_WEIGHTING} | arguments)


def test_a_main_task_is_refused_where_whole_tasks_are_weighted():
    with pytest.raises(
        ValueError, match=r"`main_task` should be left out: mtl_gym/LossWeighting-v0 has no main task\. Received main_task='digit'"
    ):
        make(main_task="digit")


@pytest.mark.parametrize("name", ["sample_loss", "alignment", "label_right", "main_meta_log_loss", "rank_feature"])
def test_what_is_known_of_samples_is_refused_where_whole_tasks_are_weighted(name):
    with pytest.raises(ValueError, match=f"`observe` should be one of .*Received observe='{name}'"):
        make(observe=[name])


def test_the_smallest_meta_split_that_is_enough():
    env = env_of(few(LEAST_META), holdout_size=None)
    assert np.isfinite(play(env, random_actions(env.action_space, 1))[-1][1]).all()


def test_quantiles_that_nobody_asked_for_do_not_bound_the_batch():
    env = env_of(batch_size=2, tasks=["digit", "angle"])
    assert np.isfinite(play(env, random_actions(env.action_space, 1))[-1][1]).all()


EQUAL = np.ones(16 * 2)


def wrong(entry):
    action = EQUAL.copy()
    action[3] = entry
    return action


WRONG_ACTIONS = {
    "negative": wrong(-0.1),
    "nearly zero": wrong(-1e-30),
    "NaN": wrong(np.nan),
    "inf": wrong(np.inf),
    "-inf": wrong(-np.inf),
    "above": wrong(1.1e6),
    "too short": EQUAL[:-1],
    "one for each sample": EQUAL[:16],
    "a table": EQUAL.reshape(16, 2),
    "one number": 1.0,
    "None": None,
    "text": "abc",
}


@pytest.mark.parametrize("name", WRONG_ACTIONS)
def test_wrong_weights_are_refused_and_change_nothing(name):
    settings = {"action": "weights", "steps_per_action": 1, "tasks": ["digit", "angle"], "env_id": SAMPLE_WEIGHTING}
    env, scalar = make_vec(**settings), make(**settings).unwrapped
    env.reset(seed=1)
    scalar.reset(seed=1)
    before = env.state(), scalar.state()
    with pytest.raises((ValueError, TypeError), match="`actions` should"):
        env.step([EQUAL, WRONG_ACTIONS[name], EQUAL])
    with pytest.raises((ValueError, TypeError), match="`action"):
        scalar.step(WRONG_ACTIONS[name])
    assert not differing(before, (env.state(), scalar.state()))


@pytest.mark.parametrize("action", ["rule", "quantiles"])
@pytest.mark.parametrize("entry", [1.01, -1.01, np.nan, np.inf])
def test_coefficients_outside_the_box_are_refused_and_change_nothing(action, entry):
    env = env_of(action=action)
    env.reset(seed=1)
    before, chosen = env.state(), np.zeros(env.action_space.shape)
    chosen[1, 2] = entry
    with pytest.raises(ValueError, match="`actions` should"):
        env.step(chosen)
    assert not differing(before, env.state())


# --- comparisons --------------------------------------------------------------------------------------------------------

SMALL = {name: value for name, value in small(train_steps=6).items() if name != "steps_per_action"} | {
    "tasks": ["digit", "parity", "angle"]
}


def compare(policies, **others):
    return mtl_gym.compare(policies, SAMPLE_WEIGHTING, **{"instances": 2} | SMALL | others)


@pytest.mark.parametrize("main_task", [None, "angle"])
def test_delta_m_is_the_gain_of_the_main_task(main_task):
    frame = compare("uniform,main", **({"main_task": main_task} if main_task else {}))
    for _, run_of in frame.groupby(["policy", "instance"]):
        own = run_of[run_of["task"] == (main_task or "digit")]
        assert own["delta_m"].iloc[0] == pytest.approx(own["gain"].mean())
        assert len(run_of) == 3
    alone = frame[frame["policy"] == "main"]
    np.testing.assert_allclose(alone["delta_m"], 0, atol=1e-2)  # single-task learning is the reference


def test_every_heuristic_of_samples_plays_with_one_task():
    frame = compare(",".join(text for text in GOLDEN if ":" not in text), tasks=["digit"], distribution=NOISE)
    assert not frame["diverged"].any()
    assert np.isfinite(frame["delta_m"]).all()


@pytest.fixture(scope="module")
def played():
    """Results of policies under wrong labels, by their names."""
    arguments = {"instances": 2, "distribution": NOISE | {"unrelated": (0.5, 0.5)}, **SMALL}
    results = run(plan("uniform,slgrad,oracle,ol-aux,gcs", SAMPLE_WEIGHTING, **arguments))
    return {
        name: [result for result in results if result.policy == name] for name in ("uniform", "slgrad", "oracle", "ol-aux", "gcs")
    }


def test_curves_tell_right_labels_from_wrong_ones(played):
    for name, area in (("uniform", 0.5), ("oracle", 1.0)):
        for result in played[name]:
            assert result.curves["auc"]["digit"] == [None] + [area] * 6
            assert len(result.curves["step"]) == 7
    for result in played["oracle"]:
        assert result.curves["wrong"]["digit"][1:] == [0] * 6
        assert min(result.curves["right"]["digit"][1:]) > 1
    for result in played["uniform"]:
        np.testing.assert_allclose(result.curves["wrong"]["digit"][1:] + result.curves["right"]["digit"][1:], 1)


def test_what_was_planted_is_kept(played):
    for result in played["uniform"]:
        assert sorted(result.planted["noise"].values()) == [0.4, 0.4, 1.0]
        assert result.planted["noise"]["digit"] == 0.4


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("uniform", 6, 6),
        ("oracle", 6, 6),
        ("slgrad", 6 + 7 * 2, 6 + 7),  # seven batches are seen: gradient of meta's 16 samples, and tangents
        ("gcs", 6, 6 + 7 * 3),
    ],
)
def test_the_passes_of_a_heuristic_are_counted(played, name, forward, backward):
    for result in played[name]:
        assert result.cost == {"forward": forward, "backward": backward}


def invoke(out, *words):
    texts = {name: json.dumps(value) for name, value in SMALL.items() if name != "problem"}
    given = [word for name, text in texts.items() for word in ("--set", f"{name}={text}")]
    return CliRunner().invoke(app, ["compare", "--env", SAMPLE_WEIGHTING, "--out", str(out), "--instances", "2", *given, *words])


@pytest.mark.slow  # whole trainings
def test_the_command_line_compares_and_draws_right_and_wrong_labels(tmp_path):
    answer = invoke(tmp_path, "--policies", "uniform,slgrad,oracle", "--set", 'distribution={"noise": [0.5, 0.5]}')
    assert answer.exit_code == 0, answer.output
    page = (tmp_path / "report.html").read_text()
    for text in ("Right and wrong labels", "Of the main task, digit, alone.", "mean weight of wrong labels", SAMPLE_WEIGHTING):
        assert text in page
    assert list(json.loads((tmp_path / "summary.json").read_text())["policies"]) == ["uniform", "slgrad", "oracle"]


def test_of_clean_trainings_no_wrong_labels_are_drawn(played):
    arguments = {"instances": 2, **SMALL}
    results = run(plan("uniform", SAMPLE_WEIGHTING, **arguments))
    summary = {"about": {"arguments": {"main_task": "digit"}}, "policies": ["uniform"]}
    assert separations(results, summary) is None
    assert separations(played["uniform"], summary) is not None


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("uniform,ew", "`env` should be 'mtl_gym/LossWeighting-v0', which ew is for. Received env='mtl_gym/SampleWeighting-v0'"),
        ("uniform,slgradd", "Did you mean 'slgrad'"),
        ("ohem:keep=2", "`keep` should"),
    ],
)
def test_policies_that_do_not_fit_are_named_and_nothing_is_written(policies, message, tmp_path):
    answer = invoke(tmp_path / "out", "--policies", policies)
    assert answer.exit_code == 2
    assert message in answer.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_function_of_losses_is_for_the_other_environment():
    with pytest.raises(ValueError, match="`env` should be 'mtl_gym/LossWeighting-v0', which function is for"):
        compare([mtl_gym.policy(lambda losses: losses)])


def test_heuristics_of_samples_are_for_this_environment_alone():
    with pytest.raises(ValueError, match="`env` should be 'mtl_gym/SampleWeighting-v0', which slgrad is for"):
        mtl_gym.compare("slgrad", **{"instances": 2, **SMALL})
