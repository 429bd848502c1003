"""Monitors a training: evaluates the agent on held-out instances, plots curves, and saves the best and the last agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import trim_mean
from stable_baselines3.common.callbacks import BaseCallback
from torch.utils.tensorboard import SummaryWriter

import mtl_gym
from mtl_gym import Policy
from mtl_gym.agents.agent import agent_of, load
from mtl_gym.agents.checkpoint import check_finite, write_checkpoint
from mtl_gym.agents.defaults import required_of, score_of
from mtl_gym.agents.files import SUFFIX
from mtl_gym.agents.settings import HELD_OUT, Settings


class Monitor(BaseCallback):
    """SB3's callback of :func:`mtl_gym.agents.train`.

    Args:
        settings: The training's settings.
        folder: Output folder.
        scores: Scores of the evaluations so far; each has ``steps``, ``reward`` (mean return, of
            :func:`mtl_gym.agents.defaults.score_of`) and ``delta_m`` (interquartile mean on the *test* split, percent).
        on_progress: Called at every step and evaluation; there is a ``return`` only if an episode has ended.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        scores: list[dict[str, float]],
        on_progress: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        super().__init__()
        self.settings, self.folder, self.scores = settings, folder, list(scores)
        self._on_progress = on_progress
        # From the file, not the scores: the run may have been killed between saving the best agent and writing the checkpoint.
        best = folder / f"best{SUFFIX}"
        self._best = load(best).about["scores"][-1]["reward"] if scores and best.is_file() else -np.inf
        self._writers: dict[str, SummaryWriter] = {}
        self._references: dict[str, dict[str, float]] = {}
        self._evaluated = False

    def _on_training_start(self) -> None:
        self._references = self._references or {name: self._score(name, name) for name in self.settings.references}
        if not self.scores:
            self._evaluate()
        self._evaluated = False

    def _on_rollout_start(self) -> None:
        due = self.num_timesteps >= len(self.scores) * self.settings.time_steps / self.settings.evaluations
        if due and self.num_timesteps > self.scores[-1]["steps"]:
            self._evaluate()

    def _on_step(self) -> bool:
        """Ends the training, by False, at the first step after an evaluation; the next one continues from the checkpoint."""
        if self._evaluated:
            return False
        ended = [info for info in self.locals["infos"] if "episode" in info]
        if ended:
            mean = float(np.mean([info["episode"]["r"] for info in ended]))
            losses = {name: float(value) for name, value in self.logger.name_to_value.items() if name.startswith("train/")}
            self._draw("agent", {"rollout/return": mean, **_last_fractions(ended), **losses})
        self._tell({"return": mean} if ended else {})
        return True

    def _tell(self, ended: Mapping[str, float]) -> None:
        last = self.scores[-1]
        known = {**ended, "score": last["reward"], "delta_m": last["delta_m"], "evaluated": last["steps"]}
        self._on_progress(self.num_timesteps, known)

    def finish(self) -> None:
        """Evaluates and saves the agent at the end of its training, unless an evaluation has ended it."""
        if not self._evaluated:
            self._evaluate()

    def close(self) -> None:
        """Closes the event files."""
        with self._named():
            for writer in self._writers.values():
                writer.close()

    def _evaluate(self) -> None:
        """Evaluates the agent, saves it, and plots it with the references."""
        self._evaluated = True
        check_finite(self.model, self.folder)
        agent = agent_of(self.model, self.settings)
        score = {"steps": float(self.num_timesteps), **self._score("agent", agent)}
        self.scores.append(score)
        agent.about["scores"] = list(self.scores)
        agent.save(self.folder / "last")
        if score["reward"] > self._best:
            self._best = score["reward"]
            agent.save(self.folder / "best")
        write_checkpoint(self.folder, self.settings.plain(), self.model, self.scores)
        for name, own in {"agent": score, **self._references}.items():
            named = ((key, f"heldout/{key.replace('reward', 'return', 1)}") for key in own if key != "steps")
            self._draw(name, {place: own[key] for key, place in named})
        self._tell({})

    def _score(self, label: str, policy: str | Policy) -> dict[str, float]:
        """Scores of a policy on the held-out instances: mean on *reward*, which selects; interquartile mean on *test*.

        Of a mixture they are means over its sources, whose own scores have the source's name after a slash.
        """
        sources = {name: self._score_on(own, label, policy) for name, own in self.settings.sources.items()}
        means = {name: float(np.mean([own[name] for own in sources.values()])) for name in ("reward", "delta_m")}
        if len(sources) == 1:
            return means
        return means | {f"{name}/{source}": value for source, own in sources.items() for name, value in own.items()}

    def _score_on(self, source: Mapping[str, Any], label: str, policy: str | Policy) -> dict[str, float]:
        env, own = self.settings.env, {*required_of(self.settings.env), "reward"}
        arguments = {name: value for name, value in source.items() if name not in own}
        ids = list(range(HELD_OUT, HELD_OUT + self.settings.instances))
        shared = {"num_envs": self.settings.num_envs, "reward": score_of(env, source), **arguments}
        frame = mtl_gym.compare({label: policy}, env, instances=ids, **shared)
        runs = frame.drop_duplicates("instance")
        return {"reward": float(runs["return"].mean()), "delta_m": float(trim_mean(runs["delta_m"], 0.25))}

    def _draw(self, run: str, scalars: Mapping[str, float]) -> None:
        with self._named():
            if run not in self._writers:
                self._writers[run] = SummaryWriter(str(self.folder / "events" / run), purge_step=self.num_timesteps)
            for name, value in scalars.items():
                self._writers[run].add_scalar(name, value, self.num_timesteps)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names the folder in TensorBoard's errors, which do not."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / "events")) from error


def _last_fractions(ended: list[dict[str, Any]]) -> dict[str, float]:
    """Mean fraction of each task's weight at the last decision of the episodes, if ``last_weights`` is observed."""
    fractions: dict[str, list[float]] = {}
    for info in ended:
        tasks = dict.fromkeys(name.rsplit("/", 1)[0] for name in info.get("test", ()))
        for task, fraction in zip(tasks, info["terminal_observation"].get("last_weights", ()), strict=False):
            fractions.setdefault(f"weights/{task}", []).append(float(fraction))
    return {name: float(np.mean(values)) for name, values in fractions.items()}
