"""Training an agent over many short trainings, side by side: the *meta* protocol. (*Online*: :mod:`mtl_gym.agents.igbv2`.)"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from mtl_gym.agents.agent import Agent, load
from mtl_gym.agents.algorithm import algorithm
from mtl_gym.agents.checkpoint import read_checkpoint, restore
from mtl_gym.agents.compatibility import action_space, check_observations
from mtl_gym.agents.files import SUFFIX
from mtl_gym.agents.leave_one_out import LeaveOneOut
from mtl_gym.agents.monitor import Monitor
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.vec_env import VectorEnvAdapter
from mtl_gym.arguments import choose, positive_int, should
from mtl_gym.evaluation.results import plain
from mtl_gym.policies import names_and_policies, split_policies
from mtl_gym.problems import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, default_problem

OnProgress = Callable[[int, Mapping[str, float]], None]
"""Is told the time steps done, and what is known of the agent: mean ``return``, held-out ``score`` and ``delta_m``."""

ROLLOUTS_PER_INSTANCE = 8
TRAINED_ON: dict[str, dict[str, Any]] = {
    LOSS_WEIGHTING: {
        "distribution": "varied",
        "reward": "gain",
        "action": "residual",
        "weight_range": 1e3,
        "steps_per_action": 20,
    },
    SAMPLE_WEIGHTING: {
        "distribution": "noisy",
        "reward": "gain",
        "steps_per_action": 25,
        "observe": [
            *("sample_loss", "sample_mean", "rank_feature", "mean_feature", "alignment_feature", "main_feature"),
            *("log_loss_mean", "slope", "meta_log_loss", "meta_slope", "last_weights", "log_epoch"),
        ],
    },
    LAYER_MERGING: {"distribution": "varied", "reward": "gain_change", "steps_per_action": 20},
    TASK_GROUPING: {"reward": "gain_over_joint"},
}
"""The arguments with which agents are trained unless others are given, by the environment's id."""
REFERENCES = {
    LOSS_WEIGHTING: ("ew", "init", "si"),
    SAMPLE_WEIGHTING: ("uniform", "slgrad", "oracle"),
    LAYER_MERGING: ("single-task", "shared", "mtsl"),
    TASK_GROUPING: ("joint", "single-task", "stg-mtl"),
}
"""Policies that are drawn beside the agent unless others are named, by the environment's id."""
_MASKED = {LAYER_MERGING: "merge", TASK_GROUPING: "place"}
"""The actions of which some are not allowed: the environments' own."""


@dataclass(frozen=True)
class Settings:
    """All that a training depends on, JSON-plain.

    Attributes:
        env: The environment's id.
        arguments: Its arguments.
        algorithm: Row of ``AGENTS``.
        options: Hyper-parameters that replace the algorithm's defaults.
        time_steps: Decisions, over all rows.
        seed: Of networks, exploration and instances.
        num_envs: Trainings that run side by side.
        rollouts_per_instance: Rows that share an instance, whose mean reward is the baseline; 1 for none.
        evaluations: How often the agent is evaluated, saved, and can be gone on from.
        instances: Number of held-out instances of an evaluation.
        references: Policies whose held-out scores are drawn beside the agent's.
    """

    env: str
    arguments: dict[str, Any]
    algorithm: str
    options: dict[str, Any]
    time_steps: int
    seed: int
    num_envs: int
    rollouts_per_instance: int
    evaluations: int
    instances: int
    references: list[str]


def train(
    problem: str | None = None,
    *,
    out: str | Path,
    algorithm: str | None = None,
    env: str = LOSS_WEIGHTING,
    time_steps: int = 76_800,
    seed: int = 0,
    num_envs: int = 64,
    rollouts_per_instance: int | None = None,
    evaluations: int = 10,
    instances: int = 32,
    references: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
    **arguments: Any,
) -> Agent:
    """Trains an agent on drawn instances of a problem, and returns the best one.

    The folder holds ``best.safetensors`` and ``last.safetensors`` (see :func:`mtl_gym.agents.load`), ``checkpoint.safetensors``,
    from which the same call goes on after a kill (on fresh instances), and TensorBoard's ``events``. The best agent is that with
    the highest mean ``delta_m`` on the *reward* split of the held-out instances, the last ids for evaluation; the test split is
    drawn, and chooses nothing.

    Args:
        problem: A problem's name; by default the environment's, ``digits`` or ``digit_tasks``.
        out: Folder of the training.
        algorithm: Row of ``AGENTS``; by default ``ppo``, and ``maskable-ppo`` where structures or groups are chosen.
        env: The environment's id.
        time_steps: Decisions, over all rows.
        seed: Of networks, exploration and instances.
        num_envs: Trainings that run side by side.
        rollouts_per_instance: Rows that share an instance, whose mean reward is the baseline
            (:class:`mtl_gym.agents.leave_one_out.LeaveOneOut`); 1 for none. By default 8 where an algorithm learns from rollouts,
            else none: in a replay buffer, old baselines are of an older policy.
        evaluations: How often the agent is evaluated, saved, and can be gone on from.
        instances: Number of held-out instances of an evaluation.
        references: Policies whose held-out scores are drawn beside the agent's; by default ``REFERENCES``'s.
        options: Hyper-parameters that replace the algorithm's defaults.
        on_progress: Is told of the progress.
        arguments: The environment's arguments; what is not given is ``TRAINED_ON``'s.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong, or the folder holds another training; before anything
            is trained or changed.
    """
    chosen = REFERENCES.get(env, ()) if references is None else references
    action = arguments.get("action", _MASKED.get(env))
    name = ("maskable-ppo" if action and action == _MASKED.get(env) else "ppo") if algorithm is None else algorithm
    settings = check_settings(
        Settings(
            env=env,
            arguments=plain({**TRAINED_ON.get(env, {}), "problem": problem or default_problem(env), **arguments}),
            algorithm=name,
            options=plain(dict(options or {})),
            time_steps=time_steps,
            seed=seed,
            num_envs=num_envs,
            rollouts_per_instance=rollouts_of(name, num_envs) if rollouts_per_instance is None else rollouts_per_instance,
            evaluations=evaluations,
            instances=instances,
            references=split_policies(chosen) if isinstance(chosen, str) else list(chosen),
        )
    )
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(should("out", "be a folder", str(folder)))
    checkpoint = read_checkpoint(folder, asdict(settings))
    done = int(checkpoint["steps"]) if checkpoint else 0
    if done >= settings.time_steps:
        return load(folder)
    with Stream(settings.seed):  # SB3 seeds and draws from the global generators, which are nobody's here
        model = make_model(settings, done)
        if checkpoint:
            restore(model, checkpoint)
        monitor = Monitor(settings, folder, checkpoint["scores"] if checkpoint else [], on_progress)
        try:
            model.learn(settings.time_steps - done, callback=monitor, reset_num_timesteps=False)
            monitor.finish()
        finally:
            monitor.close()
            model.get_env().close()  # type: ignore[union-attr]
    return load(folder / f"best{SUFFIX}")


def rollouts_of(name: str, num_envs: int) -> int:
    """The rollouts per instance that an algorithm of ``AGENTS`` has by default, or as many as divide the rows."""
    return math.gcd(ROLLOUTS_PER_INSTANCE, positive_int("num_envs", num_envs)) if algorithm(name).rollouts else 1


def check_settings(settings: Settings) -> Settings:
    """Returns the settings if they can be run.

    Raises:
        ValueError, TypeError: If one of them is wrong.
    """
    choose("env", settings.env, {id: id for id in gymnasium.registry if id.startswith("mtl_gym/")})
    for name in ("time_steps", "num_envs", "rollouts_per_instance", "evaluations", "instances"):
        positive_int(name, getattr(settings, name))
    positive_int("seed", settings.seed, least=0)
    if settings.num_envs % settings.rollouts_per_instance:
        raise ValueError(should("rollouts_per_instance", f"divide num_envs={settings.num_envs}", settings.rollouts_per_instance))
    for name in settings.references:
        if not isinstance(name, str):
            raise TypeError(should("references", "be names of policies, or paths of agents", name))
    if settings.references:
        names_and_policies(settings.references, settings.env)
    algorithm(settings.algorithm).check_options(settings.options)
    if "autoreset_mode" in settings.arguments:
        raise ValueError(should("autoreset_mode", "be left to the training", settings.arguments["autoreset_mode"]))
    return settings


def make_model(settings: Settings, done: int) -> BaseAlgorithm:
    """The algorithm with its environments; a training that goes on draws other instances than those before."""
    # Row i (or family i) takes the stream of instances with the seed + i: consecutive seeds would share most of them.
    seed = int(np.random.SeedSequence([settings.seed, done]).generate_state(1)[0] // 2)
    envs, episode = make_envs(settings)
    model = algorithm(settings.algorithm).make(envs, episode=episode, seed=seed, options=settings.options)
    model.num_timesteps = done
    return model


def make_envs(settings: Settings) -> tuple[VecEnv, int]:
    """The environments as SB3 sees them, and the number of an episode's decisions."""
    vector = gymnasium.make_vec(
        settings.env, num_envs=settings.num_envs, vectorization_mode="vector_entry_point", **settings.arguments
    )
    common = vector.unwrapped.arguments  # type: ignore[attr-defined]
    action_space({"id": settings.env, "arguments": settings.arguments}, common.recipe.num_tasks)
    algorithm(settings.algorithm).check_actions(vector.unwrapped.single_action_space)
    check_observations(common.observe, settings.algorithm)
    envs: VecEnv = VectorEnvAdapter(vector)
    if settings.rollouts_per_instance > 1:
        envs = LeaveOneOut(envs, settings.rollouts_per_instance)
    decisions = common.recipe.num_tasks if settings.env == TASK_GROUPING else common.recipe.train_steps // common.steps_per_action
    return envs, decisions
