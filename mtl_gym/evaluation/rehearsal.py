"""A rehearsal of policies that do not say what they observe: what they look for in vain is named before anything is trained."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Dict

from mtl_gym.checks import should
from mtl_gym.policies.protocol import Policy, Requirements


class _NotObservedError(KeyError):
    """An observation that is not there."""


class _Observations(dict[str, npt.NDArray[Any]]):
    def __missing__(self, name: str) -> npt.NDArray[Any]:
        raise _NotObservedError(name)


def rehearse(label: str, policy: Policy, observations: Dict, known: Mapping[str, Any]) -> None:
    """Asks a copy of a policy that names no observations once, for one environment, on the zeros of its space.

    Whatever else goes wrong with made-up values is no fault.

    Args:
        label: The policy's name in messages.
        policy: The policy.
        observations: The space of one environment.
        known: All observations of this environment by name.

    Raises:
        ValueError: If the policy looks for an observation that is not there.
    """
    if getattr(policy, "requires", Requirements()).observe is not None or hasattr(policy, "observation_space"):
        return
    boxes: dict[str, Any] = dict(observations.spaces)
    zeros = {name: np.zeros((1, *box.shape), np.float32).clip(box.low, box.high) for name, box in boxes.items()}
    missing: str | None = None
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        try:
            copy.deepcopy(policy).predict(_Observations(zeros), state=None, episode_start=np.ones(1, bool), deterministic=True)
        except _NotObservedError as error:
            missing = error.args[0]
    if missing is not None:
        others = f"This environment also has {', '.join(name for name in known if name not in zeros)}: name all that it reads as"
        remedy = f"{others} `requires = mtl_gym.Requirements(observe=(...))`."
        raise ValueError(should("predict", f"read what the policy {label!r} is given, {', '.join(zeros)}", missing, remedy))
