"""Runs policies on the same instances, paired; finished results are kept and reused."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_gym.checks import path_of
from mtl_gym.context import own_mode
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_argument_names, keywords
from mtl_gym.evaluation.frames import about, to_frame
from mtl_gym.evaluation.kernels import warn_of_others
from mtl_gym.evaluation.plans import Plan, plan, setting
from mtl_gym.evaluation.results import Result, Results, opened, plain, spec_key
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.policies.protocol import Policy
from mtl_gym.progress import progress_bar

REFERENCES = "single-task references"


OnProgress = Callable[[str, int], None]
"""Called with a label and the number of training steps just done."""


def perform(
    plan: Plan, *, out: Path | None = None, command: str | None = None, progress: bool | None = None
) -> tuple[list[Result], dict[str, Any]]:
    """Runs a plan with a progress bar; returns the results, and how they were made. ``progress`` is as in :func:`compare`."""
    with progress_bar(plan.steps, "starting", show=progress) as update:

        def tell(label: str, done: int) -> None:
            update(description=label if label == REFERENCES else f"{label} on {len(plan.ids)} instances", advance=done)

        results = run(plan, out=out, command=command, on_progress=tell)
    return results, about(setting(plan), results, **_origin(plan, command))


def _origin(plan: Plan, command: str | None) -> dict[str, Any]:
    """What a comparison comes from, besides its setting."""
    address, smallest = plan.checked.problem.address, plan.smallest_difference
    known = {"seed": plan.seed, "command": command, "address": address, "smallest_difference": smallest}
    return known | ({"suite": plan.suite} if plan.suite else {})


@own_mode()
def run(plan: Plan, *, out: Path | None = None, command: str | None = None, on_progress: OnProgress | None = None) -> list[Result]:
    """Runs every policy on every instance that ``out/results.sqlite`` does not hold yet; ``None`` stores nothing.

    ``command`` is recorded as what made the results.

    Returns:
        The results, policy by policy, in the order of the instances.
    """
    on_progress = on_progress or (lambda label, steps: None)
    train_steps, shared = plan.checked.recipe.train_steps, setting(plan)
    specs = {label: _specs(plan, shared, label, policy) for label, policy in plan.policies.items()}
    keys = {label: {id: spec_key(spec) for id, spec in own.items()} for label, own in specs.items()}
    store = None if out is None else opened(out)
    if store:
        store.begin(shared, _origin(plan, command), [key for own in keys.values() for key in own.values()])
    stored = {label: store.read(own.values()) if store else {} for label, own in keys.items()}
    if store:
        _check_kernels(plan, store, [result for own in stored.values() for result in own.values()])
    references = reference_metrics(plan.checked, plan.ids, partial(on_progress, REFERENCES))
    results = []
    for label, policy in plan.policies.items():
        known = stored[label]
        missing = [id for id in plan.ids if keys[label][id] not in known]
        on_progress(label, (len(plan.ids) - len(missing)) * train_steps)
        for start in range(0, len(missing), plan.num_envs):
            batch = missing[start : start + plan.num_envs]
            done = rollout(
                label, policy, plan.env, batch, arguments=plan.arguments, references=references, advance=partial(on_progress, label)
            )
            if store:
                store.write([specs[label][id] for id in batch], done)
            known |= {keys[label][result.instance]: result for result in done}
        results += [known[keys[label][id]] for id in plan.ids]
    return results


def _check_kernels(plan: Plan, store: Results, results: Sequence[Result]) -> None:
    """Warns if a resumed comparison would mix results of several kernels."""
    missing = len(plan.policies) * len(plan.ids) - len(results)
    warn_of_others(store.path, [result.kernels for result in results], missing, plan.checked.recipe.device)


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

    Warns:
        RuntimeWarning: If a policy's actions are clipped to the action space, if its weights were never above 0, if a function
            mixes trainings, see :func:`mtl_gym.policy`, if a model that was trained under ``VecNormalize`` comes without its
            statistics, or if ``out`` holds results of other kernels than the missing ones will be made with.
    """
    check_argument_names(specification(env), arguments, own=keywords(compare))
    checked = plan(
        policies, env, instances=instances, seed=seed, num_envs=num_envs, smallest_difference=smallest_difference, **arguments
    )
    if out is None:
        return to_frame(*perform(checked, progress=progress))
    from mtl_gym.evaluation.export import check_outputs, export  # draws, which takes a second to load

    folder = path_of("out", out)
    check_outputs(folder)
    results, made = perform(checked, out=folder, progress=progress)
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


def _specs(plan: Plan, setting: Mapping[str, Any], label: str, policy: Policy) -> dict[int, dict[str, Any]]:
    """All that each result depends on, by instance. Results of a policy that cannot be identified are never reused."""
    identity = plain(getattr(policy, "spec", None) or {"unknown": uuid.uuid4().hex})
    shared = {"setting": setting, "label": label, "policy": identity}
    return {id: {**shared, "instance": id} for id in plan.ids}
