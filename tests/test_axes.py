"""The axes `labels`, `split` and `lr`, and the choice of a checkpoint."""

import dataclasses

import numpy as np
import pytest
import torch

from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import AXES, DISTRIBUTIONS, EACH_TASK, resolve
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.instances import draw
from mtl_gym.problems.labels import complete_batches, labelled_samples
from mtl_gym.training.references import fingerprint, train
from tests.rollouts import make_trainer, make_vec, poison, random_actions, same, small


def instance(problem="digits", id=0, **axes):
    loaded = load_problem(problem) if isinstance(problem, str) else problem
    given = resolve({axis: (value, value) for axis, value in axes.items()}, loaded)
    return draw(loaded, distribution=given, num_tasks=loaded.num_tasks, network="mlp[8]", id=id)


# --- labels ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.002, 0.1, 0.6])
def test_a_share_of_each_tasks_labels_is_kept(share):
    problem = load_problem("digits")
    source = instance(labels=share).label_source(problem)
    assert ((source >= 0).sum(0) == max(1, round(share * len(source)))).all()
    kept = source >= 0
    assert (source[kept] == np.nonzero(kept)[0]).all()  # those that are kept are the samples' own
    assert share == 0.002 or len({tuple(column) for column in kept.T.tolist()}) == problem.num_tasks  # drawn for each task


def test_labels_are_kept_among_the_samples_in_use():
    drawn = instance(labels=0.1, size=0.5)
    source = drawn.label_source(load_problem("digits"))
    assert set(np.flatnonzero((source >= 0).any(1))) <= set(drawn.rows.tolist())
    assert ((source >= 0).sum(0) == round(0.1 * len(drawn.rows))).all()


def test_missing_labels_are_nan_in_train_alone_and_carry_no_gradient():
    trainer = make_trainer(distribution={"labels": [0.05, 0.3]}, train_steps=20)
    labels = trainer.losses.batch().labels
    source = np.stack([own.label_source(trainer.problem) for own in trainer.ledger.instances])  # (N, n, T)
    samples = trainer.losses.batch().samples.long().numpy()
    missing = np.take_along_axis(source, samples[:, :, None], axis=1) < 0
    for task, own in enumerate(trainer.problem.target_slices):
        assert (labels[:, :, own].flatten(2).isnan().all(2).numpy() == missing[:, :, task]).all()
    for name in ("meta", "reward"):
        assert not trainer.losses.data.holdout_labels(name).isnan().any()
    gradients = trainer.task_gradients()[0].clone()
    assert torch.isfinite(gradients).all()
    assert (gradients.abs().sum(2) > 0).all()


@pytest.mark.parametrize("share", [0.0025, 0.02, 0.2])
def test_every_batch_has_a_label_of_every_task(share):
    trainer = make_trainer(distribution={"labels": [share, share]}, batch_size=16, train_steps=40, ids=(0, 1))
    known = [labelled(trainer, row) for row in range(2)]
    for row in range(2):
        for batch in trainer.losses.drawn.batches.order[row].numpy():
            assert known[row][batch].any(0).all()
    assert (trainer.losses.labelled()).all()


def labelled(trainer, row):
    source = trainer.ledger.instances[row].label_source(trainer.problem)
    own = labelled_samples(trainer.problem, trainer.problem.splits["train"].targets)
    return np.take_along_axis(own, source.clip(0), axis=0) & (source >= 0)


def test_only_batches_without_a_label_are_changed_by_one_sample_for_each_missing_task():
    problem, drawn = load_problem("digits"), instance(labels=0.05)
    source = drawn.label_source(problem)
    plain, filled = drawn.order(32, 100), drawn.order(32, 100, source >= 0)
    missing = (~(source >= 0)[plain].any(1)).sum(1)
    changed = (plain != filled).sum(1)
    assert missing.any()
    assert (changed <= missing).all()
    assert (changed[missing == 0] == 0).all()


def test_where_there_are_more_tasks_than_samples_batches_take_what_they_can():
    order = np.zeros((3, 1), dtype=np.int32)
    known = np.eye(2, dtype=bool)
    filled = complete_batches(order, known, np.random.default_rng(0))
    assert (filled == 0).all()  # the only label of one task does not make room for that of another


def test_a_task_without_a_label_in_the_batch_has_no_gradient_and_its_last_known_loss():
    envs = make_vec(distribution={"labels": [0.0013, 0.0013]}, batch_size=2, observe=["labelled", "log_loss"], reward="none")
    envs.reset(options={"instance": np.arange(3)})
    seen = []
    for _ in range(envs.decision.length - 1):
        before = envs.decision.trainer.losses.forward().clone()
        gradients = envs.decision.trainer.task_gradients()[0]
        absent = ~envs.decision.trainer.losses.labelled()
        assert (gradients[absent] == 0).all()
        assert (gradients[~absent].abs().sum(1) > 0).any()
        observations = envs.step(np.zeros(envs.action_space.shape, dtype=np.float32))[0]
        seen.append(observations["labelled"])
        after, absent = envs.decision.trainer.losses.forward(), ~envs.decision.trainer.losses.labelled()
        if envs.arguments.steps_per_action == 1:
            assert same(after[absent], before[absent])
    assert {0.0, 1.0} == set(np.unique(np.stack(seen)))


def test_fully_labelled_orders_keep_their_bits():
    drawn = instance()
    known = np.ones((800, load_problem("digits").num_tasks), dtype=bool)
    assert (drawn.order(32, 50) == drawn.order(32, 50, known)).all()


# --- split -----------------------------------------------------------------------------------------------------------------------


def test_each_instance_draws_a_split_of_its_own_and_normalises_by_its_own_train():
    trainer = make_trainer("yeast", distribution={"split": [1, 1]}, ids=(0, 1, 2), train_steps=10)
    problem, data = trainer.problem, trainer.losses.data
    for row, drawn in enumerate(trainer.ledger.instances):
        expected = problem.pool.splits(drawn.members)
        every = {name: torch.arange(len(own)) for name, own in expected.items()}
        for name, own in expected.items():
            found = data.inputs(name, every[name].expand(3, -1))[row]
            torch.testing.assert_close(found, own.inputs, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(data.targets(name)[row], own.targets, rtol=1e-5, atol=1e-5, equal_nan=True)
    members = [trainer.ledger.instances[row].members["test"].tolist() for row in range(3)]
    assert members[0] != members[1] != members[2]
    assert (
        make_trainer("yeast", distribution={"split": [1, 1]}, ids=(1,)).ledger.instances[0].members["test"].tolist() == members[1]
    )


def test_the_losses_are_those_of_a_problem_with_that_split():
    problem = load_problem("digits")
    own = make_trainer("digits", distribution={"split": [1, 1]}, ids=(7,), train_steps=10)
    splits = problem.pool.splits(own.ledger.instances[0].members)
    settings = {"network": problem.network, "version": problem.version, "defaults": problem.defaults}
    fixed = Problem("digits", problem.tasks, splits, **settings)
    other = make_trainer(fixed, ids=(7,), train_steps=10)
    for trainer in (own, other):
        train(trainer, torch.ones(1, problem.num_tasks))
    torch.testing.assert_close(own.losses.history, other.losses.history, rtol=1e-4, atol=1e-5)
    for name in ("meta", "reward"):
        torch.testing.assert_close(own.losses.held_out([name])[name], other.losses.held_out([name])[name], rtol=1e-4, atol=1e-5)
    for name, value in own.metrics("test").items():
        torch.testing.assert_close(value, other.metrics("test")[name], rtol=1e-3, atol=1e-4)


def test_an_instances_own_test_rows_are_seen_only_at_the_end():
    problem = load_problem("yeast")
    envs, answers = episode(problem)
    rows = torch.from_numpy(envs.decision.trainer.ledger.instances[0].members["test"])
    samples = Split(problem.pool.samples.inputs.clone(), problem.pool.samples.targets.clone())
    samples.inputs[rows] += 1e3
    samples.targets[rows] = 1 - samples.targets[rows]
    pool = dataclasses.replace(problem.pool, samples=samples)
    settings = {"network": problem.network, "version": problem.version, "defaults": problem.defaults}
    others = episode(Problem("yeast", problem.tasks, pool.splits(pool.rows), pool=pool, **settings))[1]
    for (own, *rest), (other, *others_rest) in zip(answers, others, strict=True):
        assert same(own, other)
        assert same(rest[0], others_rest[0])
    final, changed = answers[-1][-1]["test"], others[-1][-1]["test"]
    assert any(final[name] != changed[name] for name in final)


def episode(problem):
    envs = make_vec(problem, num_envs=1, distribution={"split": [1, 1]}, autoreset_mode="Disabled")
    envs.reset(options={"instance": np.array([3])})
    return envs, [envs.step(action) for action in random_actions(envs.action_space, envs.decision.length)]


def test_a_problem_without_a_pool_refuses_the_axis_by_name_and_varied_leaves_it_out():
    problem = load_problem("quadratic")
    assert problem.pool is None
    with pytest.raises(ValueError, match=r"`distribution\['split'\]` should be left out: 'quadratic' has no pool"):
        resolve({"split": (1, 1)}, problem)
    assert resolve("varied", problem)["split"] == AXES["split"]
    assert resolve("varied", load_problem("digits"))["split"] == DISTRIBUTIONS["varied"]["split"]
    with pytest.raises(ValueError, match=r"`distribution\['split'\]` should be \(0, 0\) or \(1, 1\)"):
        resolve({"split": (0, 1)})


# --- learning rate ---------------------------------------------------------------------------------------------------------------


def test_the_rate_is_the_problems_times_the_instances_factor():
    trainer = make_trainer(distribution={"lr": [0.5, 2.0]}, lr=0.01)
    factors = [own.lr for own in trainer.ledger.instances]
    assert len(set(factors)) == 3
    assert all(0.5 <= factor <= 2 for factor in factors)
    assert trainer.replicas.rates(trainer.ledger.step) == [0.01 * factor for factor in factors]


def test_a_cosine_is_the_default():
    trainer = make_trainer(train_steps=10, lr=0.01, lr_schedule="cosine")
    assert small("digits").get("lr_schedule", "cosine") == "cosine"
    envs = make_vec(train_steps=20)
    assert isinstance(envs.unwrapped, MTLVectorEnv)
    assert envs.unwrapped.arguments.recipe.lr_schedule == "cosine"
    assert trainer.replicas.rates(torch.full((3,), 5))[0] == pytest.approx(0.005)


# --- axes of one task ------------------------------------------------------------------------------------------------------------

SOME = {"noise": (0.1, 0.4), "constant_label": (0.0, 0.3), "scale": (0.1, 10.0), "labels": (0.2, 0.9), "lr": (0.5, 2.0)}
VALUES = {"noise": 0.7, "constant_label": 0.6, "scale": 50.0, "labels": 0.05}


def drawn_from(axes, id=3, problem="digits"):
    loaded = load_problem(problem)
    return draw(loaded, distribution=resolve(axes, loaded), num_tasks=loaded.num_tasks, network="mlp[8]", id=id)


@pytest.mark.parametrize("axis", EACH_TASK)
@pytest.mark.parametrize("place", [0, 3])
def test_the_axis_of_one_task_changes_that_task_alone(axis, place):
    problem = load_problem("digits")
    name, value = problem.tasks[place].name, VALUES[axis]
    plain, own = drawn_from(SOME), drawn_from(SOME | {f"{axis}:{name}": (value, value)})
    field = {"scale": "scales"}.get(axis, axis)
    assert getattr(own, field)[place] == pytest.approx(value)
    others = np.arange(problem.num_tasks) != place
    for kept in ("scales", "noise", "constant_label", "labels"):
        first, second = getattr(plain, kept), getattr(own, kept)
        assert (first[others] == second[others]).all()
        assert (first[place] == second[place]) == (kept != field)
    assert (plain.lr, plain.rows.tolist(), plain.tasks.tolist()) == (own.lr, own.rows.tolist(), own.tasks.tolist())
    assert (plain.order(16, 40) == own.order(16, 40)).all()
    sources = plain.label_source(problem), own.label_source(problem)
    assert (sources[0][:, others] == sources[1][:, others]).all()
    assert (sources[0][:, place] == sources[1][:, place]).all() == (axis == "scale")


def test_only_the_named_task_lacks_labels():
    trainer = make_trainer(distribution={"labels:digit": [0.1, 0.1]}, ids=(0, 1))
    source = trainer.losses.drawn.sources["train"]
    assert (source[:, :, 1:] == torch.arange(source.shape[1])[:, None]).all()
    assert ((source[:, :, 0] >= 0).sum(1) == round(0.1 * source.shape[1])).all()
    assert trainer.losses.labelled().all()


def test_the_range_of_all_tasks_given_for_one_changes_nothing():
    for name, row in DISTRIBUTIONS.items():
        plain = drawn_from(name)
        for axis in EACH_TASK:
            own = drawn_from(row | {f"{axis}:parity": row.get(axis, AXES[axis])})
            assert same(dataclasses.asdict(plain), dataclasses.asdict(own))
        assert set(resolve(name)) == set(AXES)  # which names no task


def test_the_axis_of_a_task_takes_precedence_whatever_comes_first():
    ranges = {"labels": (0.5, 0.5), "labels:loop": (0.2, 0.2)}
    first, second = drawn_from(ranges), drawn_from(dict(reversed(ranges.items())))
    assert first.labels.tolist() == second.labels.tolist() == [0.5, 0.5, 0.2, 0.5, 0.5]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"labels:digits": (0.1, 0.2)}, r"`distribution` should be .*labels:digit\b.*Received distribution='labels:digits'"),
        ({"labels:": (0.1, 0.2)}, "Received distribution='labels:'"),
        ({"label:digit": (0.1, 0.2)}, "`distribution` should be .*'?labels"),
        ({"lr:digit": (0.5, 1)}, "`distribution` should have 'lr' without a task: it is not drawn for each task.*'lr:digit'"),
        ({"split:digit": (1, 1)}, "`distribution` should have 'split' without a task"),
        ({"size:digit": (0.5, 1)}, "`distribution` should have 'size' without a task"),
        ({"labels:digit": (0.0, 0.2)}, r"`distribution\['labels:digit'\]` should be a finite number in \(0"),
        ({"noise:digit": (0.1, 1.2)}, r"`distribution\['noise:digit'\]` should be"),
        ({"scale:digit": (1.0, 1e7)}, r"`distribution\['scale:digit'\]` should be"),
        ({"noise:digit": (0.4, 0.2)}, r"`distribution\['noise:digit'\]` should have low <= high"),
    ],
)
def test_an_axis_of_one_task_that_cannot_be_is_refused_by_name(axes, message):
    with pytest.raises(ValueError, match=message):
        make_vec(distribution=axes)


def test_a_range_of_one_task_that_is_no_pair_is_a_type_error():
    with pytest.raises(TypeError, match=r"`distribution\['noise:digit'\]` should be a pair"):
        make_vec(distribution={"noise:digit": 0.1})


def test_an_environment_steps_with_the_axis_of_one_task():
    envs = make_vec(distribution={"labels:digit": [0.02, 0.05], "scale:loop": [100, 100]}, autoreset_mode="Disabled")
    envs.reset(options={"instance": np.arange(3)})
    for action in random_actions(envs.action_space, envs.decision.length):
        observations, rewards, terminated, *_ = envs.step(action)
        assert all(np.isfinite(values).all() for values in observations.values())
        assert np.isfinite(rewards).all()
    assert terminated.all()
    assert envs.decision.trainer.ledger.scales[:, 2].tolist() == [100.0] * 3


def test_a_recipe_names_the_axes_of_one_task():
    ranges = ({"labels:digit": [0.1, 0.2]}, {"labels:digit": [0.1, 0.3]}, {})
    plain = [own.recipe.plain(own.problem) for own in (make_trainer(distribution=each, begin=False) for each in ranges)]
    assert [own["distribution"] for own in plain] == list(ranges)


# --- checkpoints -----------------------------------------------------------------------------------------------------------------


def test_a_training_ends_with_the_parameters_that_were_best_on_meta():
    settings = {"train_steps": 40, "lr": 0.05, "ids": (0, 1)}
    best, last = make_trainer(checkpoint="best_meta", **settings), make_trainer(**settings)
    ones, active = torch.ones_like(last.ledger.scales), torch.ones(2, dtype=torch.bool)
    scores, kept = [], []
    for step in range(40):
        last.update(ones, active)
        best.update(ones, active)
        if (step + 1) % 4 == 0:
            scores.append(last.losses.held_out(["meta"])["meta"].log().mean(1))
            kept.append(last.replicas.flat.clone())
        if step < 39:
            assert same(best.replicas.flat, last.replicas.flat)
    places = torch.stack(scores).argmin(0)
    assert (places < 9).any()  # otherwise there is nothing to see
    for row, place in enumerate(places.tolist()):
        assert same(best.replicas.flat[row], kept[place][row])
    extra = best.ledger.passes - last.ledger.passes
    assert torch.allclose(extra, torch.tensor([10 * best.losses.held_out_cost(["meta"]), 0.0]).expand(2, 2))


def test_a_diverged_training_ends_with_its_last_finite_checkpoint():
    trainer = make_trainer(checkpoint="best_meta", train_steps=20, ids=(0, 1))
    ones, active = torch.ones_like(trainer.ledger.scales), torch.ones(2, dtype=torch.bool)
    for step in range(20):
        if step == 15:
            trainer.replicas.flat[0] = torch.nan
        trainer.update(ones, active)
    assert trainer.finite().all()


def test_a_training_on_one_task_is_chosen_by_that_task():
    best, last = (make_trainer(checkpoint=name, train_steps=40, lr=0.05, ids=(0,) * 5) for name in ("best_meta", "last"))
    weights, active, own = torch.eye(5), torch.ones(5, dtype=torch.bool), []
    train(best, weights)
    for step in range(40):
        last.update(weights, active)
        if (step + 1) % 4 == 0:
            own.append((last.losses.held_out(["meta"])["meta"].diagonal(), last.replicas.flat.clone()))
    for row, place in enumerate(torch.stack([losses for losses, _ in own]).argmin(0).tolist()):
        assert same(best.replicas.flat[row], own[place][1][row])


def test_references_with_a_checkpoint_depend_on_the_samples_that_choose_it():
    recipes = [make_trainer(checkpoint=name, holdout_size=size) for name in ("best_meta", "last") for size in (8, 16)]
    keys = [str(fingerprint(own.problem, own.recipe)) for own in recipes]
    assert keys[0] != keys[1]
    assert keys[2] == keys[3]


def test_an_environment_ends_an_episode_with_its_best_checkpoint():
    envs = [make_vec(checkpoint=name, train_steps=40, lr=0.05, autoreset_mode="Disabled") for name in ("best_meta", "last")]
    for env in envs:
        env.reset(options={"instance": np.arange(3)})
        for _ in range(env.decision.length):
            answer = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
        env.found = answer[-1]
    assert (envs[0].found["forward"] > envs[1].found["forward"]).all()
    assert any((envs[0].found["test"][name] != envs[1].found["test"][name]).any() for name in envs[0].found["test"])
    kept, meta = envs[0].state(), envs[0].decision.trainer.losses.held_out(["meta"])["meta"].clone()
    envs[0].reset(options={"reset_mask": np.array([True, False, False])})
    assert same(envs[0].decision.trainer.losses.held_out(["meta"])["meta"][1:], meta[1:])
    assert envs[0].decision.trainer.state["best found"].tolist() == [False, True, True]
    envs[0].restore(kept)
    assert same(envs[0].decision.trainer.losses.held_out(["meta"])["meta"], meta)


@pytest.mark.parametrize("checkpoint", ["best_meta", "last"])
def test_an_episode_that_diverges_ends_with_its_best_checkpoint_and_counts_as_diverged(checkpoint):
    envs = make_vec(checkpoint=checkpoint, train_steps=40, autoreset_mode="Disabled")
    trainer, nothing = envs.decision.trainer, np.zeros(envs.action_space.shape, dtype=np.float32)
    envs.reset(options={"instance": np.arange(3)})
    for _ in range(3):
        envs.step(nothing)
    others = trainer.replicas.flat[1:].clone()
    poison(trainer, 0, torch.nan)
    observations, rewards, terminated, _, infos = envs.step(nothing)
    assert (terminated.tolist(), infos["diverged"].tolist()) == ([True, False, False],) * 2
    assert rewards[0] == -10
    assert all(np.isfinite(values).all() for values in observations.values())
    assert trainer.finite().tolist() == [checkpoint == "best_meta", True, True]
    assert not same(others, trainer.replicas.flat[1:])  # which are trained on
    if checkpoint == "best_meta":
        assert same(trainer.replicas.flat[0], trainer.state["best parameters"][0])
        found = trainer.metrics("test")
        assert all(infos["test"][name][0] == pytest.approx(float(found[name][0])) for name in found)
    for _ in range(envs.decision.length - 4):
        envs.step(nothing)
    assert trainer.finite().tolist() == [checkpoint == "best_meta", True, True]


def test_an_episode_that_is_truncated_keeps_its_last_parameters():
    settings = {"train_steps": 40, "lr": 0.5, "max_episode_steps": 7, "autoreset_mode": "Disabled"}
    envs = [make_vec(checkpoint=name, **settings) for name in ("best_meta", "last")]
    for env in envs:
        env.reset(options={"instance": np.arange(3)})
        for _ in range(7):
            truncated = env.step(np.zeros(env.action_space.shape, dtype=np.float32))[3]
        assert truncated.all()
    best, last = (env.decision.trainer for env in envs)
    assert same(best.replicas.flat, last.replicas.flat)
    assert not same(best.replicas.flat, best.state["best parameters"])


def test_where_labels_are_wrong_at_least_one_is_kept():
    problem = load_problem("digits")
    targets = problem.splits["train"].targets.clone()
    targets[torch.arange(len(targets)) % 10 > 0, 0] = torch.nan
    splits = {**problem.splits, "train": Split(problem.splits["train"].inputs, targets)}
    trainer = make_trainer(
        Problem("few", problem.tasks, splits), distribution={"labels": [0.01, 0.01], "noise": [1, 1]}, ids=range(8)
    )
    assert not trainer.losses.data.train_labels()[:, :, 0].isnan().all(1).any()


def test_an_unknown_checkpoint_is_refused():
    with pytest.raises(ValueError, match="`checkpoint` should be"):
        make_trainer(checkpoint="best_test")


def test_igbs_factor_grows_under_a_cosine_as_its_meaning_says():
    envs = make_vec(reward="igb", train_steps=40, steps_per_action=4, autoreset_mode="Disabled")
    envs.reset(options={"instance": np.arange(3)})
    for _ in range(envs.decision.length):
        rewards = envs.step(np.zeros(envs.action_space.shape, dtype=np.float32))[1]
    view = envs.unwrapped.view
    declines = (view.losses.first - view["upcoming"]) / view.losses.base  # of the last decision
    factor = rewards / declines.amin(1).numpy()
    np.testing.assert_allclose(factor, 1 / (0.5 * (1 + np.cos(np.pi * 0.9))), rtol=1e-4)
    np.testing.assert_allclose(factor, (2 * 40 / (np.pi * 4)) ** 2, rtol=0.02)
