"""Pictures of trainings."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from rollouts import LAYER_MERGING, SAMPLE_WEIGHTING, TASK_GROUPING, make, make_vec, poison, same

from mtl_gym.envs import rendering
from mtl_gym.envs.looks import task_looks
from mtl_gym.problems.base import Problem, Split, Task

SHAPE = (400, 1200, 3)


def is_picture(frame):
    return frame.shape == SHAPE and frame.dtype == np.uint8 and frame.min() < 100 and frame.max() == 255


def many_tasks(count=14, name="task_{}"):
    rng = np.random.default_rng(0)
    tasks = [Task(name.format(number), "mse", ("rmse",)) for number in range(count)]
    splits = {
        split: Split.of(rng.normal(size=(32, 3)), [rng.normal(size=32) for _ in tasks])
        for split in ("train", "meta", "reward", "test")
    }
    return Problem("many", tasks, splits)


@pytest.mark.parametrize("problem", ["digits", "quadratic"])
def test_a_picture_right_after_reset_and_at_every_step(problem):
    env = make(problem, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for _ in range(2):
        env.step(env.action_space.sample() * 0)
        frames.append(env.render())
    assert all(is_picture(frame) for frame in frames)
    assert not np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])


def test_a_picture_for_each_row():
    envs = make_vec("digits", render_mode="rgb_array")
    envs.reset(seed=0)
    envs.step(np.random.default_rng(0).uniform(-1, 1, envs.action_space.shape).astype(np.float32))
    frames = envs.render()
    assert isinstance(frames, tuple)
    assert len(frames) == 3
    assert all(is_picture(frame) for frame in frames)
    assert not np.array_equal(frames[0], frames[1])


def test_drawing_twice_gives_the_same_and_changes_nothing():
    drawn, plain = make("digits", render_mode="rgb_array"), make("digits")
    for env in (drawn, plain):
        env.reset(seed=0)
    assert np.array_equal(drawn.render(), drawn.render())
    action = np.zeros(5, dtype=np.float32)
    (first, *_), (second, *_) = drawn.step(action), plain.step(action)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_without_a_render_mode_there_is_no_picture():
    for env in (make("quadratic"), make_vec("quadratic")):
        env.reset(seed=0)
        assert env.unwrapped.render() is None


def test_a_picture_needs_a_reset():
    for env in (make("quadratic", render_mode="rgb_array"), make_vec("quadratic", render_mode="rgb_array")):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.unwrapped.render()


def test_another_render_mode_is_refused():
    with pytest.raises(ValueError, match="render_mode"):
        make_vec("quadratic", render_mode="ansi")


@pytest.mark.parametrize(("env_id", "hidden_sizes"), [(LAYER_MERGING, [8, 8]), (TASK_GROUPING, [8])])
def test_a_picture_of_each_kind_of_decision_changes_nothing(env_id, hidden_sizes):
    """Data maps that nobody observes are measured for the picture, at no cost, whatever the caller's mode is."""
    arguments = {"observe": ["progress"], "hidden_sizes": hidden_sizes, "num_envs": 2, "autoreset_mode": "Disabled"}
    arguments |= {"train_steps": 40} if env_id == TASK_GROUPING else {}
    drawn, plain = (make_vec(env_id=env_id, render_mode=mode, **arguments) for mode in ("rgb_array", None))
    for env in (drawn, plain):
        env.reset(seed=0, options={"instance": np.arange(2)})
    with torch.no_grad():
        first = drawn.render()
    for action in (0, 0):
        answers = [env.step(np.full(2, action)) for env in (drawn, plain)]
        assert same(*answers)
    assert all(is_picture(frame) for frame in (*first, *drawn.render()))
    assert not np.array_equal(first[0], drawn.render()[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_a_training_that_diverges_is_drawn(value):
    env = make("digits", render_mode="rgb_array")
    env.reset(seed=0)
    poison(env.unwrapped.vector.decision.trainer, 0, value)
    env.step(np.zeros(5, dtype=np.float32))
    assert is_picture(env.render())


@pytest.mark.parametrize("name", ["task_{}", "$x_{}$", "a very long name of a task, number {}"])
def test_fourteen_tasks_of_any_name_are_drawn(name):
    env = make(many_tasks(name=name), render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.zeros(14, dtype=np.float32))
    assert is_picture(env.render())


def test_the_lines_of_36_tasks_differ():
    looks = task_looks(f"task {number}" for number in range(36))
    assert len({repr(look) for look in looks.values()}) == 36
    assert len({look["color"] for look in task_looks("abcdefghi").values()}) == 9


def drawn(env, monkeypatch):
    """The figure that ``render`` draws."""
    figures = []
    monkeypatch.setattr(rendering, "_image", lambda figure, title: figures.append(figure) or np.zeros(SHAPE, np.uint8))
    env.render()
    return figures[0]


def test_right_after_reset_axes_have_sensible_limits(monkeypatch):
    env = make("digits", render_mode="rgb_array")
    env.reset(seed=0)
    losses, weights, gaps = drawn(env, monkeypatch).axes
    assert weights.get_ylim() == (0, 1)
    assert losses.get_ylim() == gaps.get_ylim() == (0.5, 1.2)


def lines_of(figure):
    """Colour, dashes and width of each task's line, by the text of the legend."""
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    lines = figure.axes[0].get_lines()
    return {text: (line.get_color(), line.get_linestyle(), line.get_linewidth()) for text, line in zip(texts, lines, strict=True)}


def test_the_main_task_is_marked_and_a_task_keeps_its_colour(monkeypatch):
    shown = {}
    for main_task in ("digit", "loop"):
        env = make("digits", SAMPLE_WEIGHTING, main_task=main_task, render_mode="rgb_array")
        env.reset(seed=0)
        shown[main_task] = lines_of(drawn(env, monkeypatch))
    assert next(iter(shown["loop"])) == "loop (main task)"
    for own in shown.values():
        (main, (*_, width)), *others = own.items()
        assert main.endswith(" (main task)")
        assert all(width > other for _, (*_, other) in others)
    first, second = ({text.removesuffix(" (main task)"): look[:2] for text, look in own.items()} for own in shown.values())
    assert first == second
    assert list(first) != list(second)


def test_fewer_tasks_keep_their_colours(monkeypatch):
    looks = []
    for tasks in (None, ["loop", "parity"]):
        env = make("digits", tasks=tasks, render_mode="rgb_array")
        env.reset(seed=0)
        looks.append(lines_of(drawn(env, monkeypatch)))
    assert looks[1].items() <= looks[0].items()
    assert len(looks[1]) == 2


def test_data_maps_have_axes(monkeypatch):
    env = make(env_id=TASK_GROUPING, num_tasks=3, train_steps=40, render_mode="rgb_array")
    env.reset(seed=0)
    figure = drawn(env, monkeypatch)
    maps = figure.axes[:3]
    for axes in maps:
        assert (axes.get_xlim(), axes.get_ylim()) == (maps[0].get_xlim(), maps[0].get_ylim())
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.25", "0.5"]
    assert [text.get_text() for text in maps[0].get_yticklabels()] == ["0", "0.5", "1"]
    assert any("variability" in text.get_text() for text in figure.texts)


def test_pyplot_is_not_touched():
    backend = pyplot.get_backend()
    env = make("quadratic", render_mode="rgb_array")
    env.reset(seed=0)
    env.render()
    assert not pyplot.get_fignums()
    assert pyplot.get_backend() == backend
