"""Attempts to make what :mod:`tests.fuzzing` describes, and what came of them.

It was made, or refused by a message in our form, or it was a fault.
"""

import ctypes
import gc
import inspect
import pkgutil
import re
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np

from mtl_gym.environments import ENVIRONMENTS, LAYER_MERGING, LOSS_WEIGHTING, vector_home
from mtl_gym.evaluation.player import initial_memory
from mtl_gym.policies.finding import find_policies
from mtl_gym.policies.grammar import make_policy
from mtl_gym.policies.protocol import Requirements
from mtl_gym.problems import load_problem
from mtl_gym.training.memory import FIXED, free_bytes
from tests.fuzzing import problems_of
from tests.rollouts import random_actions, small

SECONDS = 1.0
"""Longest time that making or refusing may take: of the processor, since other processes may hold this one up."""
REFUSED = (ValueError, TypeError, gymnasium.error.Error)
_FORM = re.compile(r"`.+` should .+Received .+", re.DOTALL)


@dataclass
class Attempt:
    """What happened.

    Attributes:
        outcome: ``made``, ``refused`` or ``fault``.
        fault: What is wrong; empty if nothing is.
        seconds: Time of the processor that making or refusing took.
        peak: Bytes that the process took at most, beyond those before.
        estimate: Bytes that it may take.
        made: The environment or policy.
    """

    outcome: str
    fault: str = ""
    seconds: float = 0.0
    peak: int = 0
    estimate: float = FIXED
    made: object = field(default=None, repr=False)


def attempt(make, *, estimate=lambda made: FIXED):
    """Makes something; once more if it took too long, since the first time may have had to load what the second finds."""
    found = _once(make, estimate)
    if found.seconds > SECONDS:
        found = _once(make, estimate)
    if found.seconds > SECONDS and not found.fault:
        found.outcome, found.fault = "fault", f"{found.outcome} after {found.seconds:.1f} s"
    return found


def _once(make, estimate):
    memory = Memory()
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = make()
    except REFUSED as error:
        found = Attempt("refused", seconds=time.process_time() - begun, peak=memory.peak())
        if not _FORM.search(str(error)):
            found.outcome, found.fault = "fault", f"raw {type(error).__name__}: {error}"[:300]
    except Exception as error:
        seconds = time.process_time() - begun
        return Attempt("fault", f"{type(error).__name__}: {error}"[:300], seconds, memory.peak())
    else:
        found = Attempt("made", seconds=time.process_time() - begun, peak=memory.peak(), estimate=estimate(made), made=made)
    if found.peak > found.estimate and not found.fault:
        found.outcome, found.fault = "fault", f"{found.outcome} with {found.peak / 1e6:.0f} MB, not {found.estimate / 1e6:.0f} MB"
    if found.estimate > free_bytes():
        found.outcome, found.fault = "fault", f"made although it takes {found.estimate / 1e9:.1f} GB"
    return found


class Memory:
    """How much memory the process takes at most from now on, where the system tells."""

    def __init__(self):
        if _trim:
            _trim(0)
        self._before = _status("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._before = None

    def peak(self):
        """Bytes beyond those at the beginning."""
        return 0 if self._before is None else max(_status("VmHWM") - self._before, 0)


def _status(name):
    try:
        found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def make_env(env_id, arguments):
    """The vector form of an environment."""
    return pkgutil.resolve_name(vector_home(ENVIRONMENTS[env_id]))(**arguments)


def attempt_env(env_id, arguments):
    """Makes an environment, or tries to."""
    return attempt(lambda: make_env(env_id, arguments), estimate=lambda env: env.estimated_bytes)


def attempt_policy(text):
    """Makes a policy, or tries to."""
    return attempt(lambda: make_policy(text, LAYER_MERGING if text.startswith("single-task") else None))


def quick(env):
    """Whether an episode of it takes less than some seconds, so that it can be stepped here."""
    recipe = env.arguments.recipe
    rows = 64 if "steps_per_action" in env.specification.excluded else env.num_envs
    return rows * (recipe.train_steps + 20) * recipe.batch_size <= 1e6 and env.estimated_bytes <= 1e9


def step_env(env, decisions=2):
    """Resets an environment and takes random decisions; returns what is wrong, if anything."""
    memory = Memory()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            observations, _ = env.reset(seed=0)
            for action in random_actions(env.action_space, decisions):
                observations, rewards, *_ = env.step(action)
    except Exception as error:
        return f"{type(error).__name__} in reset or step: {error}"[:300]
    if not env.observation_space.contains(observations):
        return "observations outside their space"
    if not np.isfinite(rewards).all():
        return f"rewards {rewards}"
    taken = memory.peak()
    return f"an episode took {taken / 1e6:.0f} MB, not {env.estimated_bytes / 1e6:.0f} MB" if taken > env.estimated_bytes else ""


def play_policy(policy, decisions=3):
    """Plays a policy for some decisions on a small environment that it requires; returns what is wrong, if anything."""
    requires = getattr(policy, "requires", None) or Requirements()
    env_id = requires.env or LOSS_WEIGHTING
    needed = requires.arguments()
    arguments = small(env_id=env_id, num_envs=2, **({"autoreset_mode": "Disabled"} | needed))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make_env(env_id, arguments)
            observations, _ = env.reset(seed=0)
            memory = initial_memory(policy, [0, 1], env.arguments.recipe.num_tasks)
            for _ in range(decisions):
                masks = {"action_masks": env.action_masks()} if _takes_masks(policy, env) else {}
                actions, memory = policy.predict(observations, memory, deterministic=True, **masks)
                observations, *_ = env.step(actions)
    except REFUSED as error:
        message = str(error)
        named = _FORM.search(message) and "`actions`" not in message
        return "" if named else f"{type(error).__name__} while playing: {message}"[:300]
    except Exception as error:
        return f"{type(error).__name__} while playing: {error}"[:300]
    return ""


def _takes_masks(policy, env):
    return env.decision.masked and "action_masks" in inspect.signature(policy.predict).parameters


def warm_up():
    """Loads every problem and makes every environment and policy once, so that neither loading nor importing is timed."""
    for env_id in ENVIRONMENTS:
        for problem in problems_of(env_id):
            load_problem(problem)
        step_env(make_env(env_id, small(env_id=env_id, num_envs=2)))
    for name in find_policies():
        make_policy(f"{name}:w=1" if name == "constant" else name)
    gc.collect()
    gc.freeze()  # what stays need not be looked through again
