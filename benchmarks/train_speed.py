"""What learning costs beyond the environments and the updates: the throughput of collection, relative to bare environments.

    python -m benchmarks.train_speed                both studies (half an hour)
    python -m benchmarks.train_speed ppo --smoke    only shows that it runs

- ``ppo``: ``mtl-gym train`` on six sources of ``teachers`` side by side, those of ``benchmarks/folds.py``: policy, adapter, rollout
  buffer and callbacks, evaluations apart;
- ``logged``: collecting the logged set (``benchmarks/logged.py``) of all sources, from which the bandit learns; its update is the
  bandit's (``benchmarks/bandit.py``), once. Each source is a round.

In each round, learning is timed, with SB3's ``train()`` apart, and what its environments were told is recorded; then the same
environments, set back to the state that they had before, are stepped with the recorded actions by nobody. They must return the same
observations. ``collection`` is the time of the bare environments over that of learning without its updates, ``whole`` that of bare
environments and updates over that of learning. The goal is 80 %. Writes ``benchmarks/results/train_speed.json``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bandit
from benchmarks.folds import TEACHERS, training_sources
from benchmarks.logged import CHUNKS, SMOKE, collect
from benchmarks.measuring import Run, command_line, vector_env
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.monitor import Monitor
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.settings import Settings, check_settings
from mtl_gym.evaluation.timing import quartiles
from mtl_gym.problems import load_problem

ROUNDS, ROWS, ROLLOUTS = 3, 48, 8
"""Rounds that count; trainings of each source side by side, and of each instance among them, in ``ppo``."""


class Recorder:
    """Records the calls that environments get, to repeat them without whoever made them.

    Attributes:
        calls: What was called, with copies of what it was given, in order.
        seen: The sums of the observations that were returned.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []
        self.seen: list[float] = []

    def watch(self, envs: Any) -> Any:
        """Records the environments' resets and steps from now on; returns them."""
        for name in ("reset", "step"):
            setattr(envs, name, partial(self._called, getattr(envs, name)))
        return envs

    def _called(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self.calls.append(partial(function, *(np.copy(own) for own in given), **named))
        return self._kept(function(*given, **named))

    def _kept(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        self.seen.append(sum(float(own.sum()) for own in answer[0].values()))
        return answer

    def repeat(self) -> float:
        """Repeats all calls, and forgets them; returns the seconds. Raises RuntimeError if other trainings come out."""
        expected, self.seen = self.seen, []
        passed = seconds(lambda: [self._kept(call()) for call in self.calls])
        if self.seen != expected:
            raise RuntimeError("the bare environments did not repeat what they had done")
        self.calls, self.seen = [], []
        return passed


def seconds(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def summary(learning: Sequence[float], bare: Sequence[float], updates: Sequence[float]) -> dict[str, Any]:
    """Medians over rounds, in seconds, and fractions with their quartiles."""
    total, alone, update = (np.array(own) for own in (learning, bare, updates))
    parts = {"learning": total, "bare environments": alone, "updates": update}
    fractions = {"collection": alone / (total - update), "whole": (alone + update) / total}
    return {
        "rounds": len(total),
        **{f"{name}, s": round(float(np.median(own)), 3) for name, own in parts.items()},
        **{
            name: dict(zip(("lower quartile", "fraction", "upper quartile"), np.round(quartiles(own), 3).tolist(), strict=True))
            for name, own in fractions.items()
        },
    }


# --- PPO -------------------------------------------------------------------------------------------------------------------------


def settings(run: Run) -> Settings:
    """Those of PPO on all sources of teachers, rewarded at the end."""
    short = {"train_steps": 30} if run.smoke else {}
    chosen = bandit.settings_of([{**own, **short} for own in TEACHERS], bandit.PLAIN, bandit.OBSERVED, 0)
    own, *others = ({**source, "reward_every": _steps(source)} for source in chosen.sources.values())
    rows, siblings = run.size(ROWS, 4), run.size(ROLLOUTS, 2)
    sizes = {"num_envs": rows * len(TEACHERS), "rollouts_per_instance": siblings, "instances": 2}
    return check_settings(replace(chosen, arguments=own, others=others, reward_floor=bandit.FLOOR / 100, time_steps=10**9, **sizes))


def _steps(source: dict[str, Any]) -> int:
    return int(source.get("train_steps", load_problem(source["problem"]).defaults.train_steps))


def ppo(run: Run) -> dict[str, Any]:
    """A rollout of ``mtl-gym train`` on a mixture, and its update."""
    chosen = settings(run)
    with tempfile.TemporaryDirectory() as folder, Stream(0):
        model = make_model(chosen, 0)
        envs = [own.unwrapped.envs.unwrapped for own in model.get_env().sources.values()]
        monitor = Monitor(chosen, Path(folder), [], lambda steps, known: None)
        decisions = model.n_steps * model.n_envs
        updates: list[float] = []
        train = model.train
        model.train = lambda: updates.append(seconds(train))
        learn = partial(model.learn, decisions, callback=monitor, reset_num_timesteps=False)
        learn()  # includes the first evaluation
        recorder = Recorder()
        for own in envs:
            recorder.watch(own)
        learning, bare = [], []
        for _ in range(run.size(ROUNDS)):
            before = [own.state() for own in envs]
            learning.append(seconds(learn))
            for own, state in zip(envs, before, strict=True):
                own.restore(state)
            bare.append(recorder.repeat())
        monitor.close()
    found = summary(learning, bare, updates[1:])
    return {**found, "decisions": decisions, "decisions a second": round(decisions / float(np.median(learning)), 1)}


# --- the logged set --------------------------------------------------------------------------------------------------------------


def logged(run: Run) -> dict[str, Any]:
    """A chunk of each source, and what the bandit then does once."""
    sources = training_sources(None)[:: 9 if run.smoke else 1]
    short = SMOKE if run.smoke else {}
    recorder = Recorder()
    learning, bare = [], []

    def make(env: str, num_envs: int, **given: Any) -> Any:
        return recorder.watch(vector_env(env, num_envs, **given))

    with tempfile.TemporaryDirectory() as folder:
        for source in sources:  # each of them is a round
            learning.append(seconds(partial(collect, [source], 1, Path(folder), make=make, **short)))
            bare.append(recorder.repeat())
        steps = run.size(bandit.STEPS, 5)
        update = seconds(lambda: bandit.learned(sources, 0, steps=steps, folder=Path(folder)))
    found = summary(learning, bare, [0.0] * len(learning))
    minutes = (CHUNKS * sum(learning) + update) / 60
    return {**found, "updates, s": round(update, 2), f"minutes for {CHUNKS} chunks": round(minutes, 1)}


STUDIES: dict[str, Callable[[Run], dict[str, Any]]] = {"ppo": ppo, "logged": logged}


def main(words: Sequence[str] | None = None) -> None:
    """Runs the studies, prints and stores what they measure."""
    run: Run = command_line(words)
    results = run.known()
    for name in run.chosen([*STUDIES], smoke=len(STUDIES)):
        results[name] = STUDIES[name](run)
        run.write(results)
        print(name, json.dumps(results[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
