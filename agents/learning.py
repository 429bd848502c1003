"""Trains an agent over many short trainings in parallel: the *meta* protocol. (*Online*: :mod:`mtl_gym.agents.igbv2`.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from mtl_gym import (
    LOSS_WEIGHTING,
    Executor,
    Holder,
    check_argument_names,
    check_writable,
    locked,
    make_executor,
    own_mode,
    path_of,
    plain,
    positive_int,
    progress_bar,
    should,
    specification,
    split_policies,
)
from mtl_gym.agents.agent import Agent, load
from mtl_gym.agents.algorithm import algorithm, policy_of
from mtl_gym.agents.checkpoint import read_checkpoint, restore
from mtl_gym.agents.compatibility import acts_per_task
from mtl_gym.agents.defaults import defaults_of
from mtl_gym.agents.files import SUFFIX
from mtl_gym.agents.monitor import Monitor
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.rows import make_envs
from mtl_gym.agents.settings import Settings, check_settings, default_algorithm, rollouts_of
from mtl_gym.agents.sources import Sources, sources_of

OnProgress = Callable[[int, Mapping[str, float]], None]
"""Called with the time steps done, the agent's mean ``return``, and its held-out ``score`` and ``delta_m`` at the last evaluation,
after ``evaluated`` time steps."""


@own_mode()
def train(
    problem: Sources | None = None,
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
    reward_floor: float | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    executor: str = "local",
    address: str | None = None,
    on_progress: OnProgress | None = None,
    progress: bool | None = None,
    **arguments: Any,
) -> Agent:
    """Trains an agent on random instances of a problem and returns the best one.

    The folder holds ``best.safetensors`` and ``last.safetensors`` (see :func:`mtl_gym.agents.load`), ``checkpoint.safetensors``,
    from which the same call resumes after an interruption, to the same result, and TensorBoard's ``events``. The best agent has the
    highest mean return on the held-out instances, the last ids for evaluation, measured on the *reward* split; the test split is
    plotted but never used for selection. The untrained agent takes part: if it stays the best, the last of ``about["scores"]`` has
    0 ``steps``.

    Args:
        problem: A problem's name or address (see :func:`mtl_gym.load_problem`), or a ``Problem``; by default the environment's,
            ``digits`` or ``digit_tasks``. The agent's file records the address, or the name of a ``Problem`` without one; the agent
            itself runs on any problem. Several, in a list or with commas between them, are trained on side by side, each with as
            many rows; one of a list may be a mapping of arguments of its own: ``{"problem": "digits", "lr": 6e-3}``. What is
            observed and decided must then not depend on the number of tasks.
        out: Output folder.
        algorithm: Row of ``AGENTS``; by default ``ppo``, or ``maskable-ppo`` where actions are masked.
        env: The environment's id.
        time_steps: Number of decisions, over all rows.
        seed: Seeds networks, exploration and instances.
        num_envs: Number of parallel trainings.
        rollouts_per_instance: Rows that share an instance, whose mean reward is the baseline
            (:class:`mtl_gym.agents.leave_one_out.LeaveOneOut`); 1 for none. By default 8 where an algorithm learns from rollouts,
            else 1, since old baselines in a replay buffer are stale.
        evaluations: How often the agent is evaluated and a checkpoint is written.
        instances: Number of held-out instances per evaluation, at most 10,000.
        references: Policies whose held-out scores are plotted with the agent's; by default the environment's.
        reward_floor: The smallest deviation between rollouts of an instance by which rewards are divided, problem by problem
            (:class:`mtl_gym.agents.mixture.Standardised`); ``None``: they are not divided. Use it with a reward at the end.
        options: Hyper-parameters that override the algorithm's defaults.
        workers: Number of processes that step the rows, each a part of them and with one thread of torch; 1: this process, with its
            threads. At most one for each group of ``rollouts_per_instance`` rows. The instances of a row, and its rewards within
            float tolerance, do not depend on it, and a folder may be resumed with another number; the same number gives the same
            agent bit for bit.
        executor: ``"local"``, or ``"ray"``, whose workers, even a single one, are actors of a cluster
            (``pip install "mtl-gym[cluster]"``), see ``docs/executors.md``. The agent is updated and evaluated on this machine.
        address: Address of the Ray cluster, as in :func:`mtl_gym.compare`.
        on_progress: Called as the training progresses.
        progress: Whether bars are shown, on stderr; ``None``: bars in terminals and notebooks, elsewhere a line for each phase that
            takes longer than a second. Before the first decision, single-task references are trained, and the untrained agent and
            the ``references`` are run on the held-out instances.
        arguments: The environment's arguments; defaults are in :mod:`mtl_gym.agents.defaults`.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong or the folder holds another training; before anything
            is trained or changed.
        ModuleNotFoundError: If the executor's package is not installed.
        ChildProcessError: If a worker is killed. The same call resumes from the last checkpoint.
    """
    hands = make_executor(executor, positive_int("workers", workers), address)
    spec, defaults = specification(env), defaults_of(env)
    chosen = defaults.references if references is None else references
    check_argument_names(spec, arguments)
    given, *others = sources_of(spec.problem if problem is None else problem, env, arguments)
    name = default_algorithm(env, given) if algorithm is None else algorithm
    settings = check_settings(
        Settings(
            env=env,
            arguments=given,
            algorithm=name,
            options=plain(dict(options or {})),
            time_steps=time_steps,
            seed=seed,
            num_envs=num_envs,
            rollouts_per_instance=rollouts_of(name, num_envs, 1 + len(others))
            if rollouts_per_instance is None
            else rollouts_per_instance,
            evaluations=evaluations,
            instances=instances,
            references=split_policies(chosen) if isinstance(chosen, str) else list(chosen),
            reward_floor=reward_floor,
            others=others,
        )
    )
    _check_workers(workers, settings)
    return _run(settings, hands, path_of("out", out), on_progress or (lambda steps, known: None), progress)


def _check_workers(workers: int, settings: Settings) -> None:
    """Raises ValueError if there are more workers than groups of rows."""
    most = settings.num_envs // settings.rollouts_per_instance
    if workers > most:
        condition = f"be at most {most}: num_envs={settings.num_envs} rows in groups of {settings.rollouts_per_instance}"
        raise ValueError(should("workers", condition, workers, "Take a larger num_envs."))


def _run(settings: Settings, executor: Executor, folder: Path, on_progress: OnProgress, progress: bool | None) -> Agent:
    """Begins the training of a folder, or resumes it; returns the best agent."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(should("out", "be a folder", str(folder)))
    checkpoint = read_checkpoint(folder, settings.plain())
    if checkpoint is None or checkpoint["steps"] < settings.time_steps:
        check_writable(folder, [f"{name}{SUFFIX}" for name in ("best", "last", "checkpoint")], ["events"])
        # SB3 seeds and draws from the global generators, which stay untouched.
        with Stream(settings.seed), _alone_in(folder), _shown(settings, on_progress, progress) as tell:
            tell(int(checkpoint["steps"]) if checkpoint else 0, {})
            with executor.hold(_device(settings)) as holders:
                _learn(settings, folder, tell, holders)
    return load(folder / f"best{SUFFIX}")


def _device(settings: Settings) -> str:
    """Where the rows compute: the first device that is not the CPU, if there is one."""
    return next((own["device"] for own in settings.sources.values() if own.get("device", "cpu") != "cpu"), "cpu")


@contextmanager
def _shown(settings: Settings, on_progress: OnProgress, show: bool | None) -> Iterator[OnProgress]:
    """A progress bar; yields what also moves it. Without a return, which is known at the end of episodes, only the bar moves."""
    with progress_bar(settings.time_steps, "before the first decision", show=show) as update:

        def tell(steps: int, known: Mapping[str, float]) -> None:
            update(completed=steps, description=_reached(known) if known else None)
            if "return" in known:
                on_progress(steps, known)

        yield tell


def _reached(known: Mapping[str, float]) -> str:
    steps = known["evaluated"]
    return f"delta_m {known['delta_m']:.1f} % {f'after {steps:,.0f} decisions' if steps else 'untrained'}"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder, and removes it again if nothing is written; raises ValueError if another process trains in it."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, wait=False):
            try:
                yield
            finally:
                if new:
                    with suppress(OSError):  # it holds files
                        folder.rmdir()
    except BlockingIOError as error:
        raise ValueError(should("out", "be a folder in which no other process trains", str(folder))) from error


def _learn(settings: Settings, folder: Path, on_progress: OnProgress, holders: Sequence[Holder]) -> None:
    """Trains from checkpoint to checkpoint. What follows one depends on nothing else, so that interruptions change nothing."""
    checkpoint = read_checkpoint(folder, settings.plain())
    monitor = Monitor(settings, folder, checkpoint["scores"] if checkpoint else [], on_progress)
    try:
        while checkpoint is None or checkpoint["steps"] < settings.time_steps:
            done = int(checkpoint["steps"]) if checkpoint else 0
            model = make_model(settings, done, holders)
            with closing(model.get_env()):  # type: ignore[type-var]
                if checkpoint:
                    restore(model, checkpoint)
                model.learn(settings.time_steps - done, callback=monitor, reset_num_timesteps=False)
                monitor.finish()
            checkpoint = read_checkpoint(folder, settings.plain())
    finally:
        monitor.close()


def make_model(settings: Settings, done: int, holders: Sequence[Holder] = ()) -> BaseAlgorithm:
    """The algorithm with its environments, in workers if there are any.

    After each checkpoint all random numbers, and the instances, are new ones.
    """
    # Row i (or family i) draws its instances with seed + i: consecutive seeds would share most of them.
    seed = int(np.random.SeedSequence([settings.seed, done]).generate_state(1)[0] // 2)
    envs, episode = make_envs(settings, holders)
    rows, seen = specification(settings.env).observations, envs.get_attr("arguments", 0)[0].observe
    chosen, policy = algorithm(settings.algorithm), policy_of(settings.env, settings.algorithm)
    features = chosen.features(policy, {name: rows[name].size for name in seen}, acts_per_task(settings.env, settings.arguments))
    model = chosen.make(envs, policy, episode=episode, seed=seed, options=settings.options, features=features)
    model.num_timesteps = done
    return model
