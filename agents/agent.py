"""An agent: a trained policy with all that is known of it, to be played, compared, saved and loaded."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from mtl_gym.agents.algorithm import Algorithm, algorithm
from mtl_gym.agents.compatibility import ACTION_MASK, FORMAT, action_space, check, lengths, observation_row, versions
from mtl_gym.agents.files import SUFFIX, digest, read, write
from mtl_gym.arguments import should
from mtl_gym.envs.arguments import LEFT_OUT
from mtl_gym.envs.observations import OBSERVATIONS
from mtl_gym.policies import Requirements

if TYPE_CHECKING:
    from mtl_gym.agents.training import Settings

Array = npt.NDArray[Any]
REQUIRED = (
    *("observe", "action", "rule", "weight_range", "gradient_ema", "features", "sharpness", "steps_per_action"),
    *("similarity", "transfer", "transfer_steps", "average_moments", "alignment", "snapshots", "affinity_every"),
)
"""The environment's arguments that an agent has been trained with and needs again; the others may differ."""
_SOURCES = (
    "agent.py",
    "task_policies.py",
    "structure_policies.py",
    "grouping_policies.py",
    "networks.py",
)  # what makes actions of parameters
_KEPT = ("seed", "num_envs", "rollouts_per_instance", "instances")


class Agent:
    """A trained policy.

    It runs with any number of tasks where its networks are shared over tasks (all for Box actions): a policy of the same
    parameters is built for each number that it meets.

    Args:
        about: JSON-plain: ``algorithm``, ``hyperparameters``, ``policy`` (its policy's), ``environment`` (``id`` and
            ``arguments``), ``observations`` (the rows of the table that it reads), ``versions``, ``training``,
            ``scores``.
        parameters: The policy's state dict.

    Raises:
        ValueError: If it is for another environment, other observations or another version than those installed here; the
            message names the difference.
    """

    def __init__(self, about: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]) -> None:
        check(about)
        self.about, self.parameters = dict(about), dict(parameters)
        self._algorithm: type[Algorithm] = algorithm(about["algorithm"])
        self._policies: dict[tuple[int, ...], BasePolicy] = {}
        if not all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in self.parameters.values()):
            raise ValueError("The agent's parameters should be finite float32. Train it again, or take an earlier one.")
        size = sum(tensor.numel() for tensor in self.parameters.values())
        if any(name.endswith("_size") and not 0 <= value <= size for name, value in about["policy"].items()):
            raise ValueError(should("policy", f"have sizes from 0 to {size}, the number of parameters", about["policy"]))
        self._policy(lengths(about["environment"], 2))  # so that parameters that do not fit are refused now

    @property
    def requires(self) -> Requirements:
        """What it needs of its environment."""
        arguments = self.about["environment"]["arguments"]
        known = {name: arguments[name] for name in REQUIRED if name in arguments}
        observe = tuple(known.pop("observe"))
        action, steps = known.pop("action", None), known.pop("steps_per_action", None)
        return Requirements(
            observe=observe, action=action, steps_per_action=steps, env_kwargs=known, env=self.about["environment"]["id"]
        )

    @property
    def spec(self) -> dict[str, Any]:
        """What identifies it: the digest of its parameters and what makes actions of them."""
        kept = {name: self.about[name] for name in ("algorithm", "policy", "environment", "observations")}
        source = b"".join(Path(__file__).with_name(name).read_bytes() for name in _SOURCES)
        return {
            "agent": digest(repr(sorted(kept.items())), self.parameters),
            "algorithm": self.about["algorithm"],
            "source": hashlib.sha256(source).hexdigest(),
            "stable_baselines3": version("stable-baselines3"),
        }

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
            state: What the last call returned; only recurrent agents have one.
            episode_start: (N,) bool, the rows whose memory begins anew.
            deterministic: Whether to take the mean action.

        Raises:
            ValueError: If the observation is not of the set that the agent was trained on.
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
            observations = spaces.Dict({name: _box(name, known) for name in self.about["observations"]})
            actions = action_space(self.about["environment"], known["task"], known.get("choice"))
            with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are replaced
                policy = self._algorithm.empty_policy(observations, actions, self.about["policy"])
            try:
                policy.load_state_dict(self.parameters)
            except RuntimeError as error:
                raise ValueError(f"The parameters should fit the policy of {self.about['algorithm']!r}. {error}") from error
            policy.set_training_mode(False)
            self._policies[sizes] = policy
        return self._policies[sizes]

    def save(self, path: str | Path) -> Path:
        """Writes the agent to a safetensors file, whole or not at all; returns the file's path."""
        file = Path(path)
        file = file if file.suffix == SUFFIX else file.with_name(file.name + SUFFIX)
        write(file, {"about": self.about, "parameters": self.parameters})
        return file


def load(path: str | Path) -> Agent:
    """Loads an agent; nothing in the file is run.

    Args:
        path: A file that :meth:`Agent.save` wrote, or the folder of a training, whose best agent is taken.

    Raises:
        ValueError: If the file is missing, damaged or altered, or its agent does not fit what is installed here.
    """
    try:
        file = Path(path)
        content = read(file / f"best{SUFFIX}" if file.is_dir() else file)
        return Agent(content["about"], content["parameters"])
    except Exception as error:  # whatever a damaged or hostile file brings about
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        condition = "be the file of an agent that fits this installation, or a folder that mtl_gym.agents.train has written"
        raise ValueError(should("path", condition, str(path), reason)) from error


def _box(name: str, known: Mapping[str, int]) -> spaces.Box:
    row = OBSERVATIONS[name]
    return spaces.Box(row.low, row.high, (known[row.size],), np.float32)


def agent_of(model: BaseAlgorithm, settings: Settings) -> Agent:
    """The agent that an algorithm has trained so far, with a copy of its parameters."""
    chosen = algorithm(settings.algorithm)
    envs: Any = model.get_env()
    common, own = envs.get_attr("arguments")[0], inspect.signature(type(envs.unwrapped.envs.unwrapped).__init__).parameters
    defaults = {name: own[name].default for name in REQUIRED if name in own}
    chosen_here: dict[str, Any] = {"observe": list(common.observe)}
    if "steps_per_action" not in LEFT_OUT.get(settings.env, ()):
        chosen_here["steps_per_action"] = common.steps_per_action
    given = {name: value for name, value in settings.arguments.items() if name != "group_table"}  # where this machine looked up
    arguments = {**defaults, **given, **chosen_here}
    options = {**chosen.defaults, **settings.options}
    about = {
        "format": FORMAT,
        "algorithm": settings.algorithm,
        "hyperparameters": {name: value for name, value in options.items() if name != "policy_kwargs"},
        "policy": {**chosen.policy_defaults, **options.get("policy_kwargs", {})},
        "environment": {"id": settings.env, "arguments": arguments, "problem": common.problem.identity},
        "observations": {name: observation_row(name) for name in common.observe},
        "versions": versions(),
        "training": {"time_steps": model.num_timesteps, **{name: getattr(settings, name) for name in _KEPT}},
        "scores": [],
    }
    return Agent(about, {name: tensor.detach().clone() for name, tensor in model.policy.state_dict().items()})
