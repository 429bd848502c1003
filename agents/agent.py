"""A trained policy with its metadata, which can be evaluated, compared, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from mtl_gym import Requirements, load_problem, own_mode, path_of, should, source_digest, specification
from mtl_gym.agents import compatibility
from mtl_gym.agents.algorithm import Algorithm, algorithm, policy_of
from mtl_gym.agents.compatibility import ACTION_MASK, FORMAT, acts_per_task, kinds_of, observation_row
from mtl_gym.agents.defaults import defaults_of, required_of
from mtl_gym.agents.files import SUFFIX, digest, read, write
from mtl_gym.agents.settings import Settings

Array = npt.NDArray[Any]
_SOURCES = tuple(
    f"mtl_gym.agents.{name}"
    for name in ("agent", "task_encoding", "task_policies", "structure_policies", "grouping_policies", "networks")
)
"""The modules that turn parameters into actions."""
_KEPT = ("seed", "num_envs", "rollouts_per_instance", "instances")


class Agent:
    """A trained policy.

    Where its networks share weights across tasks (not SB3's generic ones), it runs with any number of tasks: a policy with the
    same parameters is built for each number of tasks.

    Args:
        about: JSON-plain: ``algorithm``, ``hyperparameters``, ``policy`` (its options), ``environment`` (``id`` and ``arguments``),
            ``observations`` (their rows in the environment's table), ``versions``, ``training``, ``scores``.
        parameters: The policy's state dict.

    Raises:
        ValueError: If the agent does not fit the installed environment, observations or version; the message names the difference.
    """

    def __init__(self, about: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]) -> None:
        compatibility.check(about)
        self.about, self.parameters = dict(about), dict(parameters)
        self._algorithm: type[Algorithm] = algorithm(about["algorithm"])
        self._policies: dict[tuple[int, ...], BasePolicy] = {}
        if not all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in self.parameters.values()):
            raise ValueError("The agent's parameters should be finite float32. Train it again, or take an earlier one.")
        size = sum(tensor.numel() for tensor in self.parameters.values())
        if any(name.endswith("_size") and not 0 <= value <= size for name, value in about["policy"].items()):
            raise ValueError(should("policy", f"have sizes from 0 to {size}, the number of parameters", about["policy"]))
        lengths = about["environment"].get("lengths") or compatibility.lengths(about["environment"], 2)
        compatibility.check_lengths({row["size"]: lengths[row["size"]] for row in about["observations"].values()}, about, size)
        self._policy(lengths)  # rejects parameters that do not fit

    @property
    def requires(self) -> Requirements:
        """What it requires of its environment."""
        env, arguments = self.about["environment"]["id"], self.about["environment"]["arguments"]
        known = {name: arguments[name] for name in required_of(env) if name in arguments}
        observe = tuple(known.pop("observe"))
        fields = {name: known.pop(name, None) for name in ("action", "steps_per_action", "decisions")}
        return Requirements(observe=observe, env=env, env_kwargs=known, **fields)

    @property
    def spec(self) -> dict[str, Any]:
        """Identifies the agent: a digest of its parameters, and the code and versions that turn them into actions."""
        kept = {name: self.about[name] for name in ("algorithm", "policy", "environment", "observations")}
        return {
            "agent": digest(repr(sorted(kept.items())), self.parameters),
            "algorithm": self.about["algorithm"],
            "source": source_digest(*_SOURCES),
            "stable_baselines3": version("stable-baselines3"),
        }

    def __repr__(self) -> str:
        environment, scores = self.about["environment"], self.about.get("scores") or [{}]
        reached = f", held-out delta_m {scores[-1]['delta_m']:.1f} %" if "delta_m" in scores[-1] else ""
        steps = self.about["training"]["time_steps"]
        trained = f"trained on {environment['arguments'].get('problem')} for {steps} time steps{reached}"
        return f"<Agent: {self.about['algorithm']} for {environment['id']}, {trained}>"

    @own_mode()
    def predict(
        self,
        observation: Mapping[str, Array],
        state: Any = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """Stable-Baselines3's ``predict``, for any number of tasks.

        Args:
            observation: Arrays (N, length) by name, or (length,) of one environment.
            state: The state that the last call returned; only recurrent agents have one.
            episode_start: (N,) bool, the rows whose memory is reset.
            deterministic: Whether to take the mean action.

        Raises:
            ValueError: If the observations are not those that the agent was trained on.
        """
        own = self.about["observations"]
        if set(observation) != set(own):
            differing = ", ".join(sorted(set(observation) ^ set(own)))
            raise ValueError(should("observation", f"hold {', '.join(own)}", sorted(observation), f"They differ in {differing}."))
        policy = self._policy({row["size"]: np.asarray(observation[name]).shape[-1] for name, row in own.items()})
        starts = None if episode_start is None else np.asarray(episode_start, dtype=bool)
        masks = {"action_masks": np.asarray(observation[ACTION_MASK], dtype=bool)} if self._algorithm.masked else {}
        values = {name: np.asarray(values) for name, values in observation.items()}
        return policy.predict(values, state, starts, deterministic, **masks)

    def _policy(self, known: Mapping[str, int]) -> BasePolicy:
        """The policy for observations of these lengths, by the rows of ``SIZES``."""
        sizes = tuple(known[row["size"]] for row in self.about["observations"].values())
        if sizes not in self._policies:
            rows, environment = self.about["observations"], self.about["environment"]
            box: Any = {name: spaces.Box(row["low"], row["high"], (known[row["size"]],), np.float32) for name, row in rows.items()}
            actions = compatibility.action_space(environment, known.get("task", 1), known.get("choice"))
            chosen = policy_of(environment["id"], self.about["algorithm"])
            per_task = acts_per_task(environment["id"], environment["arguments"])
            features = self._algorithm.features(chosen, kinds_of(rows), per_task)
            with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are replaced
                policy = self._algorithm.empty_policy(chosen, spaces.Dict(box), actions, self.about["policy"], features)
            try:
                policy.load_state_dict(self.parameters)
            except RuntimeError as error:
                raise ValueError(f"The parameters should fit the policy of {self.about['algorithm']!r}. {error}") from error
            policy.set_training_mode(False)
            self._policies[sizes] = policy
        return self._policies[sizes]

    def save(self, path: str | Path) -> Path:
        """Writes the agent to a safetensors file, atomically; returns the file's path."""
        file = path_of("path", path)
        file = file if file.suffix == SUFFIX else file.with_name(file.name + SUFFIX)
        write(file, {"about": self.about, "parameters": self.parameters})
        return file


@own_mode()
def load(path: str | Path) -> Agent:
    """Loads an agent; no code in the file is run.

    Args:
        path: A file that :meth:`Agent.save` wrote, or the folder of a training, whose best agent is loaded.

    Raises:
        ValueError: If the file is missing, damaged or altered, its agent does not fit this installation, or the training in the
            folder has not reached its first evaluation.
    """
    content = read(_file_at(path_of("path", path)))
    try:
        return Agent(content["about"], content["parameters"])
    except Exception as error:  # a damaged or hostile file may raise anything
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        condition = "be the file of an agent that fits this installation, or a folder that mtl_gym.agents.train has written"
        raise ValueError(should("path", condition, str(path), reason)) from error


def _file_at(path: Path) -> Path:
    """The file of an agent: the path itself or, of a training's folder, the best one; raises ValueError if there is none yet."""
    try:
        names = {own.name for own in path.iterdir()} if path.is_dir() else None
    except OSError:  # the file's own error names it
        return path
    if names is None:
        return path
    if names <= {"events", f"last{SUFFIX}"}:  # what a training has written before it saves the best agent for the first time
        raise ValueError(
            f"{path} holds no agent yet: its training has not reached its first evaluation. Rerun mtl-gym train --out {path}, with "
            "the options with which it was begun, to go on."
        )
    return path / f"best{SUFFIX}"


def agent_of(model: BaseAlgorithm, settings: Settings) -> Agent:
    """The agent in its current state of training, with a copy of its parameters."""
    chosen, spec = algorithm(settings.algorithm), specification(settings.env)
    envs: Any = model.get_env()
    common, own = envs.get_attr("arguments", 0)[0], envs.get_attr("own_arguments", 0)[0]
    lengths = {"steps_per_action": common.steps_per_action} if common.decisions is None else {"decisions": common.decisions}
    brought = {"observe": list(common.observe), **lengths}
    known = {name: value for name, value in {**own, **brought}.items() if name in required_of(settings.env)}
    arguments = {**settings.common, **{name: value for name, value in known.items() if name not in spec.excluded}}
    kept = {name: value for name, value in arguments.items() if name not in defaults_of(settings.env).forgotten}
    identities = [load_problem(source["problem"]).identity for source in settings.sources.values()]
    environment = {"id": settings.env, "arguments": kept, "problem": identities[0] if len(identities) == 1 else identities}
    if policy_of(settings.env, settings.algorithm) is None:  # such a policy is for the lengths that it was trained on
        boxes: Any = model.observation_space
        environment["lengths"] = {spec.observations[name].size: box.shape[0] for name, box in boxes.items()}
    if spec.actions is None:
        environment["space"] = compatibility.plain_space(model.action_space)
    options = {**chosen.defaults, **settings.options}
    about = {
        "format": FORMAT,
        "algorithm": settings.algorithm,
        "hyperparameters": {name: value for name, value in options.items() if name != "policy_kwargs"},
        "policy": {**chosen.policy_defaults, **options.get("policy_kwargs", {})},
        "environment": environment,
        "observations": {name: observation_row(spec.observations[name]) for name in common.observe},
        "versions": compatibility.versions(),
        "training": {"time_steps": model.num_timesteps, **{name: getattr(settings, name) for name in _KEPT}},
        "scores": [],
    }
    return Agent(about, {name: tensor.detach().clone() for name, tensor in model.policy.state_dict().items()})
