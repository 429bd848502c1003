"""Families: problems of which every instance draws its own data, and ``teachers``, the one that is shipped."""

import copy
import pickle

import numpy as np
import pytest
import torch
from rollouts import make, make_trainer, make_vec, play, random_actions, rows_of, same, train

import mtl_gym
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import AXES, resolve
from mtl_gym.problems.base import Pool, Problem, Split, Task
from mtl_gym.problems.families import COMMON, Family, OwnAxis
from mtl_gym.problems.instances import draw
from mtl_gym.problems.teachers import AXES as TEACHERS, CLASSES, INPUTS, SHARED, SHIFTED, SIZES, Teachers

MIDDLE = {name: (own.low + own.high) / 2 for name, own in TEACHERS.items()}
EVERY = sum(SIZES.values())
PLAIN = {
    "mse": lambda outputs, labels: (outputs - labels).square().mean(),
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
    "cross_entropy": lambda outputs, labels: torch.nn.functional.cross_entropy(outputs, labels[:, 0].long()),
}


def instance(id=0, problem="teachers", num_tasks=4, **distribution):
    loaded = load_problem(problem)
    return draw(loaded, distribution=resolve(distribution, loaded), num_tasks=num_tasks, network="mlp", id=id)


def samples(tasks=(8, 9, 10, 11), seed=0, slots=4, **values):
    return Teachers(slots)(MIDDLE | values, np.array(tasks), np.random.default_rng(seed))


def labels_of(problem, split, task):
    return split.targets[:, problem.target_slices[task]]


# --- any family -------------------------------------------------------------------------------------------------------


def test_an_instance_draws_the_same_data_again_and_another_draws_others():
    problem, first, other = load_problem("teachers"), instance(3), instance(4)
    assert same(vars(first.samples(problem)), vars(instance(3).samples(problem)))
    assert not torch.equal(first.samples(problem).inputs, other.samples(problem).inputs)
    assert first.own != other.own


def test_a_wider_range_of_an_axis_changes_no_other():
    usual, wider = instance(3).own, instance(3, relatedness=(0.9, 1.0)).own
    assert 0.9 <= wider["relatedness"] <= 1
    assert {name for name in usual if usual[name] != wider[name]} == {"relatedness"}


@pytest.mark.parametrize("distribution", ["clean", "varied", "noisy"])
def test_values_are_within_the_ranges(distribution):
    problem = load_problem("teachers")
    ranges = resolve(distribution, problem)
    assert set(ranges) == {*AXES, *TEACHERS}
    for id in range(20):
        own = draw(problem, distribution=ranges, num_tasks=2, network="mlp", id=id).own
        assert all(ranges[name][0] <= value <= ranges[name][1] for name, value in own.items())


def test_rows_train_and_are_measured_on_their_own_samples():
    trainer = make_trainer("teachers", ids=(3, 5, 7), num_tasks=3)
    problem, data = trainer.problem, trainer.losses.data
    positions = torch.tensor([[0, 5, 799], [1, 2, 3], [9, 8, 7]])
    for row, id in enumerate((3, 5, 7)):
        own = trainer.ledger.instances[row]
        assert own.id == id
        for split, count in SIZES.items():
            known = own.split(problem, split)
            assert len(known) == count
            assert torch.equal(data.targets(split)[row], known.targets)
        known = own.split(problem, "train")
        assert torch.equal(data.inputs("train", positions)[row], known.inputs[positions[row]])
        assert torch.equal(data.own_labels("train", positions)[row], known.targets[positions[row]])


def test_losses_are_those_of_a_network_on_the_instances_own_samples():
    trainer = train(make_trainer("teachers", ids=(3, 5), num_tasks=3), 3)
    problem = trainer.problem
    for split in ("meta", "reward"):
        losses = trainer.losses.held_out([split])[split]
        for row, own in enumerate(trainer.ledger.instances):
            chosen = own.split(problem, split)[trainer.losses.data.holdouts[split]]
            weights = [value[row].double() for value in trainer.replicas.parameters.values()]
            hidden = torch.relu(chosen.inputs.double() @ weights[0] + weights[1])
            outputs = hidden @ weights[2] + weights[3]
            for place, task in enumerate(own.tasks.tolist()):
                found, known = outputs[:, problem.output_slices[task]], labels_of(problem, chosen, task).double()
                loss = PLAIN[problem.tasks[task].loss](found, known)
                assert losses[row, place].item() == pytest.approx(loss.item(), rel=1e-4)


def test_rows_are_alone_and_restored_bit_for_bit():
    env = make_vec("teachers", num_envs=3, num_tasks=2, train_steps=40)
    env.reset(options={"instance": [3, 4, 5]})
    mask = np.array([False, True, False])
    trainer = env.unwrapped.decision.trainer
    before = rows_of(trainer.clone(), [0, 2])
    env.reset(options={"instance": [0, 9, 0], "reset_mask": mask})
    assert same(before, rows_of(trainer.clone(), [0, 2]))
    actions = random_actions(env.action_space, 3)
    twin = pickle.loads(pickle.dumps(env))
    assert same([env.step(action)[0] for action in actions], [twin.step(action)[0] for action in actions])


def test_the_test_samples_cannot_be_seen():
    def unseeing(values, tasks, rng):
        drawn = Teachers(4)(values, tasks, rng)
        for table in (drawn.inputs, drawn.targets):
            table[-SIZES["test"] :] = torch.nan
        return drawn

    known = load_problem("teachers")
    blind = Problem(known.name, known.tasks, known.splits, defaults=known.defaults, family=known.family)
    blind.family = Family(known.family.axes, unseeing)  # afterwards, since a problem refuses such samples
    rollouts = []
    for problem in (known, blind):
        env = make_vec(problem, num_envs=2, num_tasks=3, distribution="varied")
        rollouts.append(play(env, random_actions(env.action_space, 2), seed=2))
    assert same(*([answer[:-1] for answer in own] for own in rollouts))


def test_memory_is_refused_before_it_is_taken():
    with pytest.raises(ValueError, match="num_envs"):
        make_vec("teachers", num_envs=2_000_000, num_tasks=2)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"split": (1, 1)}, r"distribution\['split'\].*lets instances draw all their data"),
        ({"relatednes": (0, 1)}, "relatedness"),
        ({"relatedness": (0, 2)}, r"distribution\['relatedness'\]"),
        ({"depth": (2, 1)}, "low <= high"),
        ({"relatedness:binary_0": (0, 1)}, "without a task"),
    ],
)
def test_wrong_ranges_are_refused_by_name(distribution, message):
    with pytest.raises(ValueError, match=message):
        make("teachers", distribution=distribution)


def test_axes_of_a_family_are_of_that_family_alone():
    with pytest.raises(ValueError, match="relatedness"):
        make("digits", distribution={"relatedness": (0, 1)})


# --- a family of one's own --------------------------------------------------------------------------------------------


def shifted_lines(values, tasks, rng):
    """Lines with a slope that each instance draws."""
    inputs = torch.from_numpy(rng.normal(size=(80, 1)))
    return Split(inputs, torch.cat([inputs * values["slope"], -inputs], dim=1))


def other_lines(values, tasks, rng):
    inputs = torch.from_numpy(rng.normal(size=(80, 1)))
    return Split(inputs, torch.cat([inputs * values["slope"], -2 * inputs], dim=1))


def own_family(draw=shifted_lines, slope=(1.0, 2.0), **others):
    tasks = [Task(name, "mse", ("nrmse",)) for name in ("up", "down")]
    family = Family({"slope": OwnAxis(*slope, 0.5, 3.0, "the line's slope")}, draw)
    example = draw({"slope": 1.0}, np.arange(2), np.random.default_rng(0))
    splits = {name: example[torch.arange(20) + 20 * place] for place, name in enumerate(SIZES)}
    return Problem("lines", tasks, splits, family=family, **others)


def test_ones_own_family_is_compared():
    frame = mtl_gym.compare(["ew", "init"], LOSS_WEIGHTING, problem=own_family(), instances=2, train_steps=20, batch_size=16)
    assert frame["delta_m"].notna().all()
    assert frame.groupby("instance")["reference"].first().nunique() == 2


def test_what_draws_a_family_identifies_it():
    usual = own_family().identity
    assert own_family().identity == usual
    assert own_family(other_lines).identity != usual
    assert own_family(slope=(1.0, 2.5)).identity != usual


def test_a_family_is_copied_and_pickled():
    problem = own_family()
    assert copy.deepcopy(problem) is problem
    assert pickle.loads(pickle.dumps(problem)).identity == problem.identity


def test_a_family_that_does_not_fit_is_refused():
    def short(values, tasks, rng):
        return shifted_lines(values, tasks, rng)[torch.arange(79)]

    def missing(values, tasks, rng):
        found = shifted_lines(values, tasks, rng)
        found.targets[3, 0] = torch.nan
        return found

    example = shifted_lines({"slope": 1.0}, np.arange(2), np.random.default_rng(0))
    for wrong, message in ((short, "shapes"), (missing, "finite"), (lambda *_: 3, "Split")):
        family = Family({"slope": OwnAxis(1.0, 2.0, 0.5, 3.0, "")}, wrong)
        splits = {name: example[torch.arange(20)] for name in SIZES}
        with pytest.raises((ValueError, TypeError), match=message):
            Problem("lines", [Task(name, "mse", ("nrmse",)) for name in ("up", "down")], splits, family=family)
    with pytest.raises(ValueError, match="`pool` should be left out"):
        own_family(pool=Pool.in_order(example, dict.fromkeys(SIZES, 20)))
    with pytest.raises(ValueError, match="ascending"):
        OwnAxis(1.0, 2.0, 1.5, 3.0, "")


@pytest.mark.parametrize("name", ["noise", "split", "slope:up", "a b"])
def test_an_axis_has_a_name_of_its_own(name):
    with pytest.raises(ValueError, match="names of their own"):
        Family({name: OwnAxis(1.0, 2.0, 0.5, 3.0, "")}, shifted_lines)
    assert set(COMMON) == set(AXES)


def test_draws_that_differ_or_have_labels_of_another_kind_are_refused():
    def unseeded(values, tasks, rng):
        return shifted_lines(values, tasks, np.random.default_rng())

    with pytest.raises(ValueError, match="same for the same generator"):
        own_family(unseeded)
    example = shifted_lines({"slope": 1.0}, np.arange(2), np.random.default_rng(0))
    splits = {name: Split(example.inputs[:20], (example.targets[:20] > 0).float()) for name in SIZES}
    family = Family({"slope": OwnAxis(1.0, 2.0, 0.5, 3.0, "")}, shifted_lines)
    with pytest.raises(ValueError, match=r"family.draw, train.targets.*0 or 1"):
        Problem("lines", [Task(name, "bce", ("auc",)) for name in ("up", "down")], splits, family=family)
    splits["meta"].targets[0] = torch.nan
    with pytest.raises(ValueError, match="have all labels"):
        Problem("lines", [Task(name, "bce", ("auc",)) for name in ("up", "down")], splits, family=family)


def factor_one(x):
    return x


def test_what_code_inside_a_function_refers_to_identifies_it():
    def drawn_with(helper):
        names = {"torch": torch, "Split": Split, "helper": helper}
        source = """
def draw(values, tasks, rng):
    x = torch.from_numpy(rng.normal(size=(80, 1)))
    return Split(x, torch.cat(list(helper(x) for _ in range(2)), 1))
"""
        exec(source, names)
        return own_family(names["draw"]).identity

    assert drawn_with(factor_one) == drawn_with(factor_one)
    assert drawn_with(factor_one) != drawn_with(lambda x: 2 * x)


def test_a_draw_that_cannot_be_identified_is_refused_by_name():
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0]})
    with pytest.raises(ValueError, match=r"family.draw.*be one that can be identified"):
        own_family(lambda values, tasks, rng: shifted_lines({"slope": frame["a"][0]}, tasks, rng)).identity  # noqa: B018


def test_inputs_are_corrupted_by_the_instances_own_training_samples():
    from mtl_gym.problems.corruptions import corrupted

    problem = load_problem("teachers")
    own = instance(0, width=(0.5, 0.5))
    test, train = own.split(problem, "test"), own.split(problem, "train")
    changed = (corrupted(problem, test, "gaussian", 5, train).inputs != test.inputs).any(0)
    assert changed.nonzero().flatten().tolist() == list(range(INPUTS // 2))


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_all_slots_have_labels_of_their_kind_and_others_are_zero():
    drawn = samples(tasks=range(12))
    classes = drawn.targets[:, 4:8]
    assert set(drawn.targets[:, :4].unique().tolist()) == {0.0, 1.0}
    assert set(classes.unique().tolist()) == set(range(CLASSES))
    train = drawn.targets[: SIZES["train"], 8:]
    torch.testing.assert_close(train.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)
    assert (samples(tasks=(0, 9)).targets[:, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]] == 0).all()


def test_unused_columns_are_zero_and_used_ones_standardised():
    inputs = samples(width=0.5).inputs
    assert (inputs[:, INPUTS // 2 :] == 0).all()
    torch.testing.assert_close(inputs[:, : INPUTS // 2].std(0), torch.ones(INPUTS // 2), atol=0.1, rtol=0)


def rank(values):
    return int(torch.linalg.matrix_rank(values.double() - values.double().mean(0), rtol=1e-4))


@pytest.mark.parametrize("seed", range(3))
def test_fully_related_tasks_are_functions_of_the_shared_features(seed):
    shared = samples(tasks=range(28, 42), slots=14, seed=seed, relatedness=1.0, errors=0.0)
    apart = samples(tasks=range(28, 42), slots=14, seed=seed, relatedness=0.0, errors=0.0)
    assert rank(shared.targets[:, 28:]) == SHARED
    assert rank(apart.targets[:, 28:]) == 14


def test_conflict_makes_tasks_look_along_shared_directions():
    """Where all is linear, a task's regression on the inputs is along its directions: together those of many tasks span few."""
    alike = {"tasks": range(28, 42), "slots": 14, "difficulty": 0.05, "depth": 1.0, "errors": 0.0, "relatedness": 0.0, "width": 1.0}
    spans = []
    for conflict in (0.0, 1.0):
        drawn = samples(conflict=conflict, **alike)
        slopes = torch.linalg.lstsq(drawn.inputs.double(), drawn.targets[:, 28:].double()).solution  # (inputs, tasks)
        values = torch.linalg.svdvals(slopes / slopes.norm(dim=0))
        spans.append(values[SHARED:].square().sum().item() / values.square().sum().item())  # beyond as many as are shared
    assert spans[1] < 0.05 < 0.2 < spans[0]


def test_noise_hides_the_latent_values():
    clean, noisy = (samples(errors=errors, tasks=[8]).targets[:, 8] for errors in (0.0, 2.0))
    assert 0.1 < np.corrcoef(clean, noisy)[0, 1] < 0.9


def test_imbalance_makes_classes_rare():
    def frequencies(imbalance):
        drawn = [samples(tasks=[0, 4], seed=seed, imbalance=imbalance).targets for seed in range(10)]
        binary = np.array([min(own[:, 0].mean().item(), 1 - own[:, 0].mean().item()) for own in drawn])
        classes = np.array([np.bincount(own[:, 4].long(), minlength=CLASSES).min() / EVERY for own in drawn])
        return binary, classes

    (binary, classes), (rare, rarest) = frequencies(0.0), frequencies(0.95)
    np.testing.assert_allclose(binary, 0.5, atol=1e-3)
    assert rare.mean() < 0.4
    assert rarest.mean() < 0.6 * classes.mean()


def test_depth_is_another_function_of_the_same_inputs():
    drawn = [samples(depth=depth, errors=0.0) for depth in (1.0, 2.0, 3.0)]
    assert all(torch.equal(own.inputs, drawn[0].inputs) for own in drawn)
    assert not torch.equal(drawn[0].targets, drawn[1].targets)


def test_shifted_teachers_are_beyond_all_of_training():
    problem = load_problem("teachers_shifted")
    for name, (low, high) in problem.family.ranges.items():
        assert (low, high) == SHIFTED[name]
        if name not in ("relatedness", "conflict"):
            assert low >= TEACHERS[name].high or high <= TEACHERS[name].low


@pytest.mark.parametrize("num_tasks", [2, 40])
def test_many_tasks_take_part(num_tasks):
    env = make_vec("teachers_many", num_envs=2, num_tasks=num_tasks)
    env.reset(seed=0)
    assert len(env.unwrapped.decision.trainer.ledger.instances[0].tasks) == num_tasks


def test_tasks_can_be_learned():
    trainer = make_trainer("teachers", ids=range(4), num_tasks=4, hidden_sizes=[32], batch_size=64, train_steps=200, lr=1e-2)
    before = trainer.losses.held_out(["reward"])["reward"]
    after = train(trainer, 200).losses.held_out(["reward"])["reward"]
    assert (after < before).double().mean() > 0.8
