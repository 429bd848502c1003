import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import SPLITS, Pool, Problem, Split, Task
from mtl_gym.problems.digits import turned
from mtl_gym.problems.pools import equal_inputs

FIXED = {"multimnist", "quadratic"}  # pairs of images chain all of them; one input for all
FAMILIES = {"teachers", "teachers_shifted", "teachers_many"}
POOLED = pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in FIXED | FAMILIES])
TASKS = (Task("number", "mse", ("rmse",)), Task("class", "bce", ("auc",)))


def samples(count=24, missing=0):
    rng = np.random.default_rng(0)
    number = rng.normal(3, 2, count)
    number[:missing] = np.nan
    return Split.of(rng.normal([5, -2, 1], [2, 0.5, 0], (count, 3)), [number, np.arange(count) % 2])


def rows_of(*sizes, start=0):
    ends = np.cumsum([start, *sizes])
    return {name: np.arange(first, last) for name, first, last in zip(SPLITS, ends, ends[1:], strict=False)}


def pool_of(sizes=(8, 4, 4, 4), **options):
    return Pool(samples(), rows_of(*sizes), **options)


# --- every row of the table -------------------------------------------------------------------------------------------


def test_all_problems_but_those_with_fixed_splits_and_families_have_a_pool():
    without = [load_problem(name) for name in PROBLEMS if load_problem(name).pool is None]
    assert {own.name for own in without if own.family is None} == FIXED
    assert {own.name for own in without if own.family is not None} == FAMILIES


@POOLED
def test_the_splits_of_the_pool_are_those_of_the_problem(name):
    problem = load_problem(name)
    splits = problem.pool.splits(problem.pool.rows)
    for split in SPLITS:
        for own in ("inputs", "targets"):
            found, expected = (getattr(of[split], own) for of in (splits, problem.splits))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, equal_nan=True)


@POOLED
def test_drawn_splits_are_disjoint_whole_groups_of_equal_sizes_and_differ(name):
    pool = load_problem(name).pool
    groups = np.arange(len(pool.samples)) if pool.groups is None else pool.groups
    tests = []
    for seed in range(20):
        drawn = pool.drawn(np.random.default_rng(seed))
        assert {split: len(rows) for split, rows in drawn.items()} == {split: len(rows) for split, rows in pool.rows.items()}
        for rows in drawn.values():
            assert (np.diff(rows) > 0).all()
            assert 0 <= rows[0] <= rows[-1] < len(pool.samples)
        for first, second in itertools.combinations(SPLITS, 2):
            assert not set(groups[drawn[first]]) & set(groups[drawn[second]])
        tests.append(tuple(drawn["test"]))
    assert len(set(tests)) == 20


@POOLED
def test_samples_with_equal_inputs_share_a_group(name):
    pool = load_problem(name).pool
    equal = equal_inputs(pool.samples.inputs)
    if equal is not None:
        for rows in np.split(np.argsort(equal, kind="stable"), np.cumsum(np.bincount(equal))[:-1]):
            assert len(rows) == 1 or (pool.groups is not None and len(set(pool.groups[rows])) == 1)


@POOLED
def test_a_draw_is_a_pure_function_of_its_generator(name):
    pool = load_problem(name).pool
    first, second = (pool.drawn(np.random.default_rng(7)) for _ in range(2))
    assert all((first[split] == second[split]).all() for split in SPLITS)


@POOLED
def test_drawn_training_splits_are_normalised_by_their_own_moments(name):
    pool = load_problem(name).pool
    train = pool.splits(pool.drawn(np.random.default_rng(1)))["train"]
    scaled = slice(None) if pool.scaled_inputs is True else list(pool.scaled_inputs or ())
    values = [train.inputs[:, scaled].flatten(1), *(train.targets[:, column].flatten()[:, None] for column in pool.scaled_targets)]
    for columns in values:
        for column in columns.double().unbind(1):
            known = column[~column.isnan()]
            assert abs(known.mean()) < 1e-4
            assert abs(known.std(correction=0) - 1) < 1e-4 or (known == 0).all()


@POOLED
def test_a_mean_over_drawn_splits_is_that_of_the_pool(name):
    """No sample is preferred: each stands in *train* as often as the size of *train* says."""
    pool = load_problem(name).pool
    counts = np.zeros(len(pool.samples))
    for seed in range(200):
        counts[pool.drawn(np.random.default_rng(seed))["train"]] += 1
    expected = len(pool.rows["train"]) / len(pool.samples)
    assert abs(counts.mean() / 200 - expected) < 1e-9
    assert counts.min() > 200 * expected / 3
    assert counts.max() < 200 * (1 + expected) / 2 + 40


# --- one's own --------------------------------------------------------------------------------------------------------


def test_a_pool_without_groups_uses_each_sample_once():
    drawn = pool_of((12, 4, 4, 4)).drawn(np.random.default_rng(0))
    assert sorted(np.concatenate(list(drawn.values()))) == list(range(24))


def test_what_a_group_has_over_the_size_of_a_split_stays_unused():
    groups = np.repeat(np.arange(8), 3)
    pool = pool_of((6, 3, 3, 3), groups=groups)
    pool = Pool(pool.samples, {**pool.rows, "train": np.arange(4), "meta": np.arange(6, 8)}, groups)
    drawn = pool.drawn(np.random.default_rng(0))
    assert [len(drawn[name]) for name in SPLITS] == [4, 2, 3, 3]
    assert len(set(groups[drawn["train"]])) == 2
    unused = set(range(24)) - set(np.concatenate(list(drawn.values())).tolist())
    begun = {int(group) for rows in drawn.values() for group in groups[rows]}
    assert sum(groups[sample] in begun for sample in unused) == 3  # two of a group of train, one of a group of meta


def test_groups_may_have_any_numbers():
    pool = pool_of(groups=np.repeat([-5, 10**12, 3, 0, 7, 9], 4))
    assert pool.groups.tolist() == np.repeat([0, 5, 2, 1, 3, 4], 4).tolist()


def test_moments_are_the_mean_and_deviation_over_train_without_missing_labels():
    rows = np.arange(8)
    pool = Pool(samples(missing=3), rows_of(8, 4, 4, 4), scaled_inputs=True, scaled_targets=(0,))
    moments, inputs, labels = pool.moments(rows), pool.samples.inputs[:8].double(), pool.samples.targets[3:8, 0].double()
    torch.testing.assert_close(moments.input_mean, inputs.mean(0).float())
    torch.testing.assert_close(moments.input_deviation[:2], inputs.std(0, correction=0)[:2].float())
    torch.testing.assert_close(moments.target_mean, torch.tensor([float(labels.mean()), 0.0]))
    torch.testing.assert_close(moments.target_deviation, torch.tensor([float(labels.std(correction=0)), 1.0]))


def test_a_constant_becomes_zero():
    pool = pool_of(scaled_inputs=True)
    moments = pool.moments(pool.rows["train"])
    assert (moments.input_mean[2], moments.input_deviation[2]) == (1, 1)
    assert (pool.splits(pool.rows)["test"].inputs[:, 2] == 0).all()


@pytest.mark.parametrize(("scaled", "kept"), [(False, [0, 1, 2]), ((1,), [0, 2]), (True, [])])
def test_only_the_features_that_are_named_are_scaled(scaled, kept):
    pool = pool_of(scaled_inputs=scaled)
    moments, splits = pool.moments(pool.rows["train"]), pool.splits(pool.rows)
    assert torch.equal(moments.input_mean == 0, torch.tensor([feature in kept for feature in range(3)]))
    assert torch.equal(splits["test"].inputs[:, kept], pool.samples.inputs[16:20][:, kept])
    assert torch.equal(splits["test"].targets, pool.samples.targets[16:20])


def test_dense_labels_are_scaled_over_pixels_and_samples():
    targets = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    targets[0, 0, 0, 0] = torch.nan
    pool = Pool(Split(torch.zeros(8, 1), targets), rows_of(5, 1, 1, 1), scaled_targets=(0,))
    found = pool.splits(pool.rows)
    known = targets[:5, 0][~targets[:5, 0].isnan()]
    torch.testing.assert_close(pool.moments(pool.rows["train"]).target_mean, torch.stack([known.mean(), torch.tensor(0.0)]))
    torch.testing.assert_close(found["test"].targets[:, 0], (targets[7:, 0] - known.mean()) / known.std(correction=0))
    assert torch.equal(found["test"].targets[:, 1], targets[7:, 1])


def test_equal_inputs_are_found():
    assert equal_inputs([[1, 2], [3, 4], [1, 2], [0, -0.0], [-0.0, 0]]).tolist() == [0, 1, 0, 2, 2]
    assert equal_inputs(np.arange(4)[:, None]) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": rows_of(8, 4, 4)}, "`rows` should be those of train, meta, reward, test"),
        ({"rows": rows_of(8, 4, 4, 4, start=5)}, r"`rows\['test'\]` should be indices from 0 to 23. Received .*\[24\]"),
        ({"rows": {**rows_of(8, 4, 4, 4), "meta": [3, 4]}}, r"`rows` should have each sample in at most one split.*\[3, 4\]"),
        ({"rows": {**rows_of(8, 4, 4, 4), "meta": [-1]}}, r"`rows\['meta'\]` should be indices from 0"),
        ({"rows": {**rows_of(8, 4, 4, 4), "meta": []}}, "`rows` should have samples in each split"),
        ({"rows": {**rows_of(8, 4, 4, 4), "meta": [[1]]}}, r"`rows\['meta'\]` should have one axis"),
        ({"groups": np.arange(23)}, r"`groups` should have the shape \(24,\)"),
        ({"groups": np.repeat([0, 1, 2, 3], 6)}, r"`rows` should have each group in one split. Received rows=\[1, 2\]"),
        ({"scaled_targets": (2,)}, "`scaled_targets` should be indices from 0 to 1"),
        ({"scaled_inputs": (3,)}, "`scaled_inputs` should be indices from 0 to 2"),
    ],
)
def test_what_is_no_pool_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Pool(**{"samples": samples(), "rows": rows_of(8, 4, 4, 4)} | options)


def test_groups_that_cannot_be_divided_are_refused():
    rows = {"train": np.arange(10), "meta": np.arange(10, 13), "reward": np.arange(13, 16), "test": np.arange(16, 24)}
    groups = np.r_[np.zeros(10), np.full(3, 1), np.full(3, 2), np.full(8, 3)].astype(int)
    Pool(samples(), rows, groups)  # one order of the groups suffices
    with pytest.raises(ValueError, match=r"`groups` should allow disjoint splits of whole groups with 9 in train.*Make the splits"):
        Pool(samples(), rows_of(9, 3, 3, 5), np.repeat([0, 1, 2, 3], [9, 3, 3, 9])).drawn(Stuck())


class Stuck:
    """A generator that never mixes: the smallest group comes first."""

    def permutation(self, count):
        return np.roll(np.arange(count), -1)


@pytest.mark.parametrize("options", [{"samples": "none"}, {"groups": np.full(24, 0.5)}, {"scaled_targets": (0.5,)}])
def test_wrong_types_are_refused(options):
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` should be"):
        Pool(**{"samples": samples(), "rows": rows_of(8, 4, 4, 4)} | options)


def problem_of(pool, **options):
    return Problem("own", TASKS, options.pop("splits", None) or pool.splits(pool.rows), pool=pool, **options)


def test_a_pool_is_kept_by_pickle():
    problem = problem_of(pool_of(groups=np.arange(24) // 2, scaled_inputs=(1,), scaled_targets=(0,)))
    other = pickle.loads(pickle.dumps(problem)).pool
    assert torch.equal(other.samples.targets, problem.pool.samples.targets)
    assert other.division == problem.pool.division


def test_the_pool_belongs_to_the_identity_of_a_problem_of_ones_own():
    plain = problem_of(pool_of())
    assert plain.identity == problem_of(pool_of()).identity
    without = Problem("own", TASKS, plain.splits)
    others = [problem_of(pool_of(groups=np.arange(24) // 2)), problem_of(pool_of(), splits=plain.splits, version=1), without]
    assert all(other.identity != plain.identity for other in others)


@pytest.mark.parametrize("name", ["digits", "yeast"])
def test_the_identity_of_a_listed_problem_is_its_name_and_version(name):
    assert load_problem(name).identity == [name, PROBLEMS[name].version]


def test_a_problem_is_complete_only_if_its_pool_is():
    assert problem_of(pool_of()).complete
    spare = Pool(samples(), rows_of(8, 4, 4, 4))
    targets = spare.samples.targets.clone()
    targets[23, 0] = torch.nan  # in no split, until one is drawn
    pool = Pool(Split(spare.samples.inputs, targets), spare.rows)
    assert not problem_of(pool).complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pool: {"splits": pool.splits({**pool.rows, "meta": np.arange(8, 11)})}, "`pool.rows` should have the sizes of the"),
        (lambda pool: {"pool": Pool(pool.samples, pool.rows, scaled_targets=(1,))}, "`pool.scaled_targets` should not.*'class'"),
        (lambda pool: {"pool": changed(pool, "inputs", torch.zeros(24, 4))}, "`pool.samples.inputs` should have samples of shape"),
        (lambda pool: {"pool": changed(pool, "targets", torch.zeros(24, 3))}, "`pool.samples.targets` should have a shape"),
        (lambda pool: {"pool": changed(pool, "targets", torch.full((24, 2), 0.5))}, "`pool.samples.targets` should be 0 or 1"),
        (lambda pool: {"pool": changed(pool, "inputs", torch.full((24, 3), torch.inf))}, "`pool.samples.inputs` should be finite"),
    ],
)
def test_a_pool_that_does_not_match_its_problem_is_refused(change, message):
    pool = pool_of()
    with pytest.raises(ValueError, match=message):
        Problem("own", TASKS, **{"splits": pool.splits(pool.rows), "pool": pool} | change(pool))


def changed(pool, name, values):
    return Pool(Split(**{"inputs": pool.samples.inputs, "targets": pool.samples.targets} | {name: values}), pool.rows)


def test_what_is_no_pool_at_all_is_refused():
    pool = pool_of()
    with pytest.raises(TypeError, match="`pool` should be a Pool"):
        Problem("own", TASKS, pool.splits(pool.rows), pool=pool.rows)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_an_image_is_turned_counter_clockwise_around_its_middle():
    image = np.arange(64.0).reshape(1, 8, 8)
    np.testing.assert_allclose(turned(image, np.array([90.0])), np.rot90(image, axes=(1, 2)), atol=1e-9)
    np.testing.assert_allclose(turned(image, np.array([0.0])), image)
    assert turned(np.ones((1, 8, 8)), np.array([45.0]))[0, 0, 0] == 0  # its corner comes from outside


def test_a_turned_image_is_that_of_a_linear_interpolation():
    from scipy.ndimage import rotate

    images, angles = np.random.default_rng(0).random((3, 8, 8)), np.array([-27.0, 11.0, 30.0])
    expected = [rotate(np.pad(image, 4), angle, reshape=False, order=1) for image, angle in zip(images, angles, strict=True)]
    np.testing.assert_allclose(turned(images, angles), np.stack(expected)[:, 4:12, 4:12], atol=1e-9)


def test_inputs_of_digits_are_the_clean_image_with_noise_and_a_covered_square():
    from mtl_gym.problems.digits import _NOISE, _PATCH

    pool = load_problem("digits").pool
    inputs, clean = (values.reshape(-1, 8, 8).numpy() for values in (pool.samples.inputs, pool.samples.targets[:, 4:]))
    covered = inputs == 0
    assert np.abs(covered.sum((1, 2)) - _PATCH**2).max() <= 2  # a noisy pixel may be 0 as well
    noise = (inputs - clean)[~covered]
    assert abs(noise.std() - _NOISE) < 0.005
    assert abs(noise.mean()) < 0.005
    angles = pool.samples.targets[:, 3]
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30


def test_the_examples_of_the_page_run():
    page = (Path(__file__).parent.parent / "docs" / "problems.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, names)
    assert len(names["test"]) == len(names["pool"].rows["test"])
    problem = names["make"]()
    assert {name: len(split) for name, split in problem.splits.items()} == {"train": 300, "meta": 100, "reward": 100, "test": 100}
    assert list(names["make_lines"]().family.axes) == ["slope"]


def test_the_page_tells_the_sizes_of_the_splits():
    page = (Path(__file__).parent.parent / "docs" / "problems.md").read_text()
    for name in ("digits", "digits_scales", "census", "yeast", "digit_tasks", "multimnist"):
        sizes = ", ".join(f"{len(load_problem(name).splits[split]):,}" for split in SPLITS)
        assert re.search(rf"\| `{name}` \|.*\| {sizes} \|", page), name
    groups, rows = load_problem("river_flow").pool.groups, load_problem("river_flow").pool.rows
    assert f"| {', '.join(str(len(set(groups[rows[split]]))) for split in SPLITS)} blocks |" in page
