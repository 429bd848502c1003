"""Runs policies on the same instances, paired; finished results are kept and reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_gym.checks import path_of
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_argument_names, keywords
from mtl_gym.evaluation.executors import make_executor
from mtl_gym.evaluation.executors.jobs import Executor
from mtl_gym.evaluation.executors.local import Local
from mtl_gym.evaluation.frames import about, to_frame
from mtl_gym.evaluation.plans import Plan, plan, setting
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.runs import REFERENCES, origin, run_all
from mtl_gym.policies.protocol import Policy
from mtl_gym.progress import progress_bar

Performed = tuple[list[Result], dict[str, Any]]
"""Results, and how they were made."""


def perform(
    plan: Plan,
    *,
    out: Path | None = None,
    command: str | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
) -> Performed:
    """Runs a plan with a progress bar; returns the results, and how they were made. ``progress`` is as in :func:`compare`."""
    return perform_all({"": plan}, out=out, command=command, progress=progress, executor=executor)[""]


def perform_all(
    plans: Mapping[str, Plan],
    *,
    out: Path | None = None,
    command: str | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
    on_end: Callable[[str, Performed], None] = lambda name, performed: None,
) -> dict[str, Performed]:
    """The same of several plans by name; ``on_end`` is called as soon as one is done."""
    found: dict[str, Performed] = {}

    def end(name: str, results: list[Result]) -> None:
        found[name] = results, about(setting(plans[name]), results, **origin(plans[name], command))
        on_end(name, found[name])

    with progress_bar(sum(plan.steps for plan in plans.values()), "starting", show=progress) as update:

        def tell(name: str, label: str, done: int) -> None:
            doing = label if label == REFERENCES else f"{label} on {len(plans[name].ids)} instances"
            update(description=f"{name}: {doing}" if name else doing, advance=done)

        run_all(plans, executor or Local(), out=out, command=command, on_progress=tell, on_end=end)
    return {name: found[name] for name in plans}


def run(
    plan: Plan,
    *,
    out: Path | None = None,
    command: str | None = None,
    on_progress: Callable[[str, int], None] = lambda label, steps: None,
    executor: Executor | None = None,
) -> list[Result]:
    """Runs a plan (:func:`mtl_gym.evaluation.runs.run_all`).

    Returns:
        The results, policy by policy, in the order of the instances.
    """
    found: list[Result] = []
    run_all(
        {"": plan},
        executor or Local(),
        out=out,
        command=command,
        on_progress=lambda name, label, steps: on_progress(label, steps),
        on_end=lambda name, results: found.extend(results),
    )
    return found


def compare(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = LOSS_WEIGHTING,
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    smallest_difference: float = 0.0,
    out: str | Path | None = None,
    progress: bool | None = None,
    workers: int | None = None,
    executor: str = "local",
    address: str | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Runs every policy on the same instances and compares each with single-task learning.

    Args:
        policies: Names with options (``"ew,si,constant:w=1,2,3"`` or a list), policies, or a mapping of labels to either. A
            Stable-Baselines3 model is a policy; if it has an environment with ``VecNormalize``, observations are normalised with
            its statistics. After loading a model, this takes ``PPO.load(path, env=VecNormalize.load(statistics, venv))``.
        env: The environment's id.
        instances: Number of instances, or their ids.
        seed: Selects the ids of a number n of instances: ``seed * 10^4`` to ``seed * 10^4 + n - 1``.
        num_envs: Number of parallel trainings.
        smallest_difference: The smallest difference that matters, in points of ``delta_m``: policies whose difference is
            significantly smaller are called equal (see :func:`mtl_gym.leaderboard`). By default 0: what matters depends on the use,
            so only policies with the same scores are equal.
        out: Output folder, as on the command line: ``results.sqlite``, where finished results are kept and reused, and, at the end,
            ``report.html``, ``results.csv``, ``summary.json`` and TensorBoard curves. ``None`` writes nothing.
        progress: Whether a bar is shown, on stderr; ``None``: if it takes longer than a second, a bar in terminals and notebooks,
            elsewhere a line for each policy. Within another progress bar, as that one.
        workers: Number of batches of ``num_envs`` instances that are trained at once, each with one thread of torch, whatever their
            number: rows do not depend on it. ``None``: one for each core of this machine, in processes that are started if it takes
            longer than a few seconds. 1: all in this process, with its number of threads.
        executor: ``"local"``, or ``"ray"`` for a cluster (``pip install "mtl-gym[cluster]"``), see ``docs/executors.md``.
        address: Address of the Ray cluster; ``None``: by ``RAY_ADDRESS``, else a new one on this machine.
        arguments: The environment's arguments (``problem``, ``distribution``, ``lr`` ...), the same for all policies.

    Returns:
        A tidy frame with a row for each policy, instance, task and metric: ``value`` on the test split, single-task ``reference``,
        ``gain`` in percent (positive is better), the instance's ``delta_m`` in percent, ``forward`` and ``backward`` passes,
        ``return`` (of ``reward``, which is ``"none"`` here unless given) and ``diverged``. If both kinds of tasks count,
        ``classification`` and ``regression`` are the ``delta_m`` of the tasks of each kind. Then come the environment's columns:
        ``parameter_fraction`` and ``corrupted`` of LayerMerging; ``num_groups`` and, for at most 6 tasks, ``regret``
        of TaskGrouping; and with action masks ``invalid_actions``, the fraction of the policy's decisions that were masked and
        replaced: 0 if its ``predict`` takes ``action_masks``, as sb3_contrib's do. ``frame.attrs["about"]`` records how the frame
        was made. :func:`mtl_gym.leaderboard` and :func:`mtl_gym.summarize` compute the statistics, and :mod:`mtl_gym.plots` draws.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong, or a policy is for other observations or actions,
            before anything is run; or if an answer of a policy is wrong.
        ChildProcessError: If the worker of a batch is killed three times.

    Warns:
        RuntimeWarning: If a policy's actions are clipped to the action space, if its weights were never above 0, if a function
            mixes trainings, see :func:`mtl_gym.policy`, if a model that was trained under ``VecNormalize`` comes without its
            statistics, or if ``out`` holds results of other kernels than the missing ones will be made with.
    """
    check_argument_names(specification(env), arguments, own=keywords(compare))
    trainers = make_executor(executor, workers, address)
    checked = plan(
        policies, env, instances=instances, seed=seed, num_envs=num_envs, smallest_difference=smallest_difference, **arguments
    )
    if out is None:
        return to_frame(*perform(checked, progress=progress, executor=trainers))
    from mtl_gym.evaluation.export import check_outputs, export  # draws, which takes a second to load

    folder = path_of("out", out)
    check_outputs(folder)
    results, made = perform(checked, out=folder, progress=progress, executor=trainers)
    export(results, made, folder)
    return to_frame(results, made)


def evaluate(
    policy: str | Policy,
    env: str = LOSS_WEIGHTING,
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    **arguments: Any,
) -> pd.DataFrame:
    """Evaluates one policy: :func:`compare`, with the same arguments and frame, for one policy, given by name or as an object."""
    return compare([policy], env, instances=instances, seed=seed, num_envs=num_envs, **arguments)
