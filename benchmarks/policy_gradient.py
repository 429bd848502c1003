"""PPO on a mixture of sources: an agent for the action ``rule``, and the search of its hyper-parameters with Optuna.

    python -m benchmarks.policy_gradient                 10 trials on teachers alone (an hour; rerun to resume)
    python -m benchmarks.policy_gradient --trials 24     more of them

Rewards are final ones on *reward*, less the mean of the other rollouts of the same instance and over the source's deviation between
them, so the advantages are those of a group. Every update, each source draws another length, number of tasks and rates
(``benchmarks/logged.py``). A trial is scored by what its agent gains over `init` on training instances of teachers that it has not
seen; no shipped problem takes part. The first trial is the recipe before it was tuned. Writes
``benchmarks/results/policy_gradient.json``: all trials, and the ``best`` one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.bandit import FLOOR, INIT, INPUTS, PLAIN, VALIDATION, gained, settings_of, start_at
from benchmarks.folds import TEACHERS, fingerprint
from benchmarks.logged import DECISIONS, drawn_settings
from benchmarks.measuring import RESULTS, ROOT, Run, command_line
from benchmarks.rules import BASE, COLUMNS, REACH
from mtl_gym.agents.agent import Agent, agent_of
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.rows import make_envs
from mtl_gym.agents.settings import Settings

ROWS, ROLLOUTS = 48, 8
"""Trainings of each source side by side, and of each instance among them."""
UPDATES, SHORT, TRIALS = 16, 8, 10
"""Updates of an agent and of a trial, and trials of a search."""
USED = [0, *(COLUMNS.index(name) for name in PLAIN)]
STARTS = {"init": INIT[USED].tolist(), "level": (BASE / REACH)[USED].tolist()}
"""The actions that an agent starts from."""
FOUND = RESULTS / "policy_gradient.json"
UNTUNED = {"inputs": "all", "start": "init", "learning_rate": 1e-3, "n_epochs": 10, "log_std_init": -1.2}
"""The first trial."""


class _Redrawn(BaseCallback):
    """Gives the model other environments after each rollout."""

    def __init__(self, settings: Settings, draw: Callable[[int], list[dict[str, Any]]], first: int) -> None:
        super().__init__()
        self._settings, self._draw, self._number = settings, draw, first

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._number += 1
        first, *others = self._draw(self._number)
        envs, _ = make_envs(replace(self._settings, arguments=first, others=others))
        envs.seed(self._number)
        self.model.get_env().close()  # type: ignore[union-attr]
        self.model.set_env(envs)
        self.model._last_obs = envs.reset()  # type: ignore[assignment]


def drawn(
    settings: Settings, sources: Sequence[Mapping[str, Any]], number: int, kept: Sequence[str] = ("problem",)
) -> list[dict[str, Any]]:
    """The sources' arguments with the length, number of tasks and rates of a number, but for those that are kept."""
    own = [drawn_settings(source, number) for source in sources]
    given = [settings.arguments, *settings.others]
    return [
        {**before, **now, "reward_every": now["train_steps"], **{name: before[name] for name in kept}}
        for before, now in zip(given, own, strict=True)
    ]


def learned(
    sources: Sequence[Mapping[str, Any]],
    seed: int,
    *,
    updates: int = UPDATES,
    inputs: str = "run",
    start: str = "level",
    log_std_init: float = -1.2,
    **options: float,
) -> Agent:
    """The agent that PPO makes of a rule on these sources.

    Args:
        sources: Settings of environments.
        seed: Seeds networks, exploration, instances, and the sources' draws.
        updates: Rollouts of ``ROWS`` trainings of each source.
        inputs: What it observes, a row of ``INPUTS``.
        start: The rule that it starts from, a row of ``STARTS``.
        log_std_init: The log deviation of its first actions.
        options: Further hyper-parameters.
    """
    settings = settings_of(sources, PLAIN, INPUTS[inputs], seed)
    return trained(settings, sources, updates, STARTS[start], log_std_init=log_std_init, **options)


def trained(
    settings: Settings,
    sources: Sequence[Mapping[str, Any]],
    updates: int,
    start: Sequence[float] | None,
    *,
    log_std_init: float,
    kept: Sequence[str] = ("problem",),
    **options: float,
) -> Agent:
    """The agent of these settings, which begins with the coefficients of an action, or as SB3 makes it; see :func:`learned`.

    What is ``kept`` is not drawn for each update.
    """
    first, seed, rows = 20_000 * (settings.seed + 1), settings.seed, ROWS * len(sources)
    chosen = {"gae_lambda": 1.0, "gamma": 1.0, "policy_kwargs": {"log_std_init": log_std_init}, **options}
    settings = replace(settings, options=chosen, num_envs=rows, rollouts_per_instance=ROLLOUTS, reward_floor=FLOOR / 100)
    draw = partial(drawn, settings, sources, kept=kept)
    own, *others = draw(first)
    settings = replace(settings, arguments=own, others=others)
    with Stream(seed):
        model = make_model(settings, 0)
        if start is not None:
            start_at(model.policy, INIT.new_tensor(start))
        model.learn(updates * DECISIONS * rows, callback=_Redrawn(settings, draw, first))
        with closing(model.get_env()):  # type: ignore[type-var]
            agent = agent_of(model, settings)
    agent.about["training"] |= {"method": "benchmarks.policy_gradient", "trainings": updates * rows}
    return agent


def best() -> dict[str, Any]:
    """The hyper-parameters of the best trial; raises FileNotFoundError if they were not searched."""
    if not FOUND.is_file():
        raise FileNotFoundError(f"There is no search in {FOUND}. Run python -m benchmarks.policy_gradient.")
    return dict(json.loads(FOUND.read_text())["best"])


def suggested(trial: optuna.Trial) -> dict[str, Any]:
    """The hyper-parameters of a trial."""
    return {
        "inputs": trial.suggest_categorical("inputs", ["run", "all"]),
        "start": trial.suggest_categorical("start", [*STARTS]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "n_epochs": trial.suggest_categorical("n_epochs", [3, 10, 20]),
        "log_std_init": trial.suggest_float("log_std_init", -3.0, -0.7),
    }


def search(trials: int, updates: int, instances: int, storage: str | None, **others: Any) -> dict[str, Any]:
    """All trials, and the best one."""
    sources = [{**source, **others} for source in TEACHERS]
    name = sha256(about(sources, updates, instances).encode()).hexdigest()[:8]
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=6)
    study = optuna.create_study(direction="maximize", study_name=name, storage=storage, load_if_exists=True, sampler=sampler)
    if not study.trials:
        study.enqueue_trial(UNTUNED)

    def objective(trial: optuna.Trial) -> float:
        begun = time.perf_counter()
        agent = learned(sources, 100, updates=updates, **suggested(trial))
        gains = gained({"agent": agent}, sources, instances)["agent"]
        trial.set_user_attr("gains", gains)
        print(trial.number, trial.params, gains, f"{time.perf_counter() - begun:.0f} s", flush=True)
        return sum(gains) / len(gains)

    study.optimize(objective, n_trials=max(trials - len([own for own in study.trials if own.state.is_finished()]), 0))
    rows = [
        {**own.params, "gain": round(own.value, 3), "gains": own.user_attrs["gains"]}
        for own in study.trials
        if own.value is not None
    ]
    return {"trials": rows, "best": study.best_params}


def about(sources: Sequence[Mapping[str, Any]], updates: int, instances: int) -> str:
    """What tells searches apart."""
    return repr(([fingerprint(dict(own)) for own in sources], updates, instances, ROWS, ROLLOUTS))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=TRIALS)


def main(words: Sequence[str] | None = None) -> None:
    """Searches, and writes what was found."""
    run: Run
    run, given = command_line(words, _options)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if run.smoke:
        with tempfile.TemporaryDirectory() as folder:
            run.write(search(1, 1, 2, f"sqlite:///{Path(folder) / 'trials.db'}", train_steps=30))
        return
    folder = ROOT / "runs" / "policy_gradient"
    folder.mkdir(parents=True, exist_ok=True)
    run.write(search(given.trials, SHORT, VALIDATION, f"sqlite:///{folder / 'trials.db'}"))


if __name__ == "__main__":
    main()
