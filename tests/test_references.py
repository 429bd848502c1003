import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rollouts import MADE_FOR_GROUPING, make_trainer, same, small, train, with_splits

from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.axes import DISTRIBUTIONS
from mtl_gym.problems.base import Split
from mtl_gym.training import references
from mtl_gym.training.references import average_references, fingerprint, single_task_metrics


def checked(problem="quadratic", **others):
    arguments = check_arguments(specification(LOSS_WEIGHTING), **small(problem, **others))
    return arguments.problem, arguments.recipe


@pytest.mark.parametrize("problem", ["digits", "quadratic"])
def test_a_reference_is_the_metric_of_a_training_of_that_task_alone(problem):
    metrics = single_task_metrics(*checked(problem), [3, 4], "test")
    for task, own in enumerate(load_problem(problem).tasks):
        trainer = make_trainer(problem, ids=[3, 4], lr_schedule="cosine")
        train(trainer, 8, torch.eye(load_problem(problem).num_tasks)[task])
        for metric in own.metrics:
            name = f"{own.name}/{metric}"
            torch.testing.assert_close(metrics[name], trainer.metrics("test")[name].double(), rtol=1e-4, atol=1e-5)


def test_references_do_not_depend_on_how_many_are_trained_at_once():
    problem, recipe = checked("digits", train_steps=4, steps_per_action=2)
    many, one = single_task_metrics(problem, recipe, range(12), "reward"), single_task_metrics(problem, recipe, [11], "reward")
    for name, values in many.items():
        torch.testing.assert_close(values[11:], one[name], rtol=1e-4, atol=1e-5)


def test_tasks_that_do_not_take_part_have_no_reference():
    metrics = single_task_metrics(*checked("digits", num_tasks=2), [1, 2, 3], "test")
    known = torch.stack([~torch.isnan(values) for values in metrics.values()])
    assert known.sum(0).tolist() == [2, 2, 2]


def test_averages_are_kept_in_the_cache(cache_folder, monkeypatch):
    problem, recipe = checked(lr=0.0123)
    first = average_references(problem, recipe)
    texts = [path.read_text() for path in cache_folder.glob("references-*.json")]
    assert any(json.loads(text).get(json.dumps(fingerprint(problem, recipe), sort_keys=True)) for text in texts)
    monkeypatch.setattr(references, "_known", {})
    assert average_references(problem, recipe) == first


def test_averages_are_finite_and_of_every_metric():
    problem, recipe = checked("digits", train_steps=4, steps_per_action=2, num_tasks=3)
    averages = average_references(problem, recipe)
    assert set(averages) == {f"{task.name}/{metric}" for task in problem.tasks for metric in task.metrics}
    assert all(np.isfinite(value) for value in averages.values())


def test_averages_are_of_the_tasks_that_may_take_part():
    problem, recipe = checked("digits", train_steps=4, steps_per_action=2, num_tasks=2, tasks=["loop", "digit", "angle"])
    averages = average_references(problem, recipe)
    assert {name.split("/")[0] for name in averages} == {"digit", "angle", "loop"}
    assert all(np.isfinite(value) for value in averages.values())


def test_a_reference_does_not_depend_on_which_other_tasks_may_take_part():
    names = ["digit", "angle", "loop"]
    some, all_of_them = checked("digits", num_tasks=2, tasks=names), checked("digits", num_tasks=2)
    bound, free = (single_task_metrics(*own, range(12), "test") for own in (some, all_of_them))
    both = {name: ~torch.isnan(bound[name]) & ~torch.isnan(free[name]) for name in free}
    assert sum(int(known.sum()) for known in both.values()) > 0
    for name, known in both.items():
        torch.testing.assert_close(bound[name][known], free[name][known], rtol=1e-4, atol=1e-5)
        assert name.split("/")[0] in names or torch.isnan(bound[name]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.5),
        ("train_steps", 16),
        ("batch_size", 8),
        ("hidden_sizes", [4]),
        ("num_tasks", 2),
        ("tasks", ["digit", "angle"]),
        ("optimizer", "sgd"),
    ],
)
def test_what_a_training_depends_on_has_a_fingerprint_of_its_own(name, value):
    assert fingerprint(*checked("digits")) != fingerprint(*checked("digits", **{name: value}))


def test_tasks_have_a_fingerprint_that_their_order_does_not_change():
    def own(*tasks):
        return fingerprint(*checked("digits", num_tasks=2, tasks=tasks))

    assert own("angle", "digit", "loop") == own("loop", "angle", "digit")
    assert own("angle", "digit", "loop") != own("angle", "digit", "parity")


def test_naming_all_tasks_has_the_fingerprint_of_naming_none():
    names = [task.name for task in load_problem("digits").tasks]
    plain = fingerprint(*checked("digits"))
    assert plain == fingerprint(*checked("digits", tasks=names[::-1]))
    assert "tasks" not in plain


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name not in MADE_FOR_GROUPING])
def test_references_of_default_arguments_are_shipped(problem, distribution):
    arguments = check_arguments(specification(LOSS_WEIGHTING), problem=problem, distribution=distribution)
    loaded, recipe = arguments.problem, arguments.recipe
    shipped = references._shipped()[json.dumps(fingerprint(loaded, recipe), sort_keys=True)]
    assert set(shipped) == {f"{task.name}/{metric}" for task in loaded.tasks for metric in task.metrics}
    fewer = replace(recipe, tasks=recipe.tasks[1:])
    assert json.dumps(fingerprint(loaded, fewer), sort_keys=True) not in references._shipped()


def test_other_data_under_the_same_name_have_a_fingerprint_of_their_own():
    problem, recipe = checked()
    split = problem.splits["reward"]
    other = with_splits("quadratic", reward=Split(split.inputs, split.targets + 1))
    assert fingerprint(problem, recipe) != fingerprint(other, recipe)


def test_references_are_the_same_under_no_grad():
    trainer = make_trainer(ids=[3])
    with torch.no_grad():
        found = single_task_metrics(trainer.problem, trainer.recipe, [3], "reward")
    assert same(found, single_task_metrics(trainer.problem, trainer.recipe, [3], "reward"))
