"""Random arguments of environments, and random policies, as strategies made from the tables and signatures that define them.

Every value is of one of four kinds: *valid*; on the *edge* of what is allowed; *wrong*; or *huge*.
"""

import functools
import inspect
import typing
from decimal import Decimal

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import strategies as st

from mtl_gym.checks import shown
from mtl_gym.decisions.grouping.modes import GROUPINGS
from mtl_gym.decisions.merging.structures import MERGE_ACTIONS, SIMILARITIES
from mtl_gym.decisions.merging.transfer import TRANSFERS
from mtl_gym.decisions.sample_rules import FEATURES, SAMPLE_ACTIONS
from mtl_gym.decisions.task_features import TASK_FEATURES
from mtl_gym.decisions.task_rules import ACTIONS, RULES, SCOPES
from mtl_gym.environments import ENVIRONMENTS, LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import argument_names, check_arguments, supported_problems
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.policies.finding import find_policies, policy_class
from mtl_gym.problems.axes import AXES, DISTRIBUTIONS
from mtl_gym.training.optim import LR_SCHEDULES, OPTIMIZERS
from tests.rollouts import small

_ACTIONS = {
    LOSS_WEIGHTING: [*ACTIONS],
    SAMPLE_WEIGHTING: [*SAMPLE_ACTIONS],
    LAYER_MERGING: [*MERGE_ACTIONS],
    TASK_GROUPING: [*GROUPINGS],
}
_TABLES = {
    "rule": [*RULES],
    "scope": [*SCOPES],
    "similarity": [*SIMILARITIES],
    "transfer": [*TRANSFERS],
    "optimizer": [*OPTIMIZERS],
    "lr_schedule": [*LR_SCHEDULES],
    "group_table": ["auto", "train"],
    "device": ["cpu"],
    "render_mode": [None, "rgb_array"],
    "autoreset_mode": [*AutoresetMode, *(mode.value for mode in AutoresetMode)],
}
"""Texts by argument; those that depend on the environment are added by :func:`texts_of`."""
_COUNTS = {"train_steps": [8, 16, 40], "steps_per_action": [1, 2, 4, 8], "reward_every": [4, 8], "batch_size": [4, 16, 64]}
"""Counts that go together, by argument; others are from 1 to 6."""

_WRONG = [
    *(None, True, False, np.True_, "", " ", "\0", "\n", "nan", "é", "\ud800", "a" * 5000, b"ab", bytearray(2), [], (), {}),
    *([[]], {"a": 1}, {1: 2}, set(), frozenset({"angle"}), float("nan"), float("inf"), -float("inf"), -1, 0, -0.0, 1.5, 1j, "1"),
    *(np.float64("nan"), np.array(3), np.array([1, 2]), np.ones(1), torch.ones(1), torch.tensor(2), torch.ones(2, 2), object()),
    *(Decimal(1), print, int, range(3), slice(2), [None], [True], ["a" * 5000], ["\0"], [float("nan")], [-1], [0], [1.5], [[1]]),
    *("hpu", "meta", "cuda:99", "cpu:7", "mps", "gpu", "=1+1", "digits ", "DIGITS", "../digits", ["digit"], ("angle", "angle")),
]
_HUGE = [
    *(10**4, 10**5, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 10**12, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(10**5000, 1e6, 1e7, 1e12, 1e20, 1e38, 3.5e38, 1e39, 1e100, 1e308, -1e39, 1e-12, 1e-38, 1e-40, 1e-320, 5e-324),
    *(np.int64(2**62), np.uint64(2**63), np.float64(1e300), np.longdouble("1e400"), Decimal("1e999"), "a" * 10**6),
    *([10**6], [10**9], [10**6, 10**6], [2**62], [10**400], [64] * 200, [8] * 10**5, ["digit"] * 10**5, [1e400], range(10**9)),
    *({"noise": [0, 1e39]}, {"scale": [1e-300, 1e300]}, {"scale": [1e39, 1e39]}, {"size": [1e-320, 1]}, {"scale": [1, 10**400]}),
]


@functools.cache
def problems_of(env_id):
    """The problems that an environment supports."""
    return supported_problems(specification(env_id))


@functools.cache
def texts_of(env_id, name):
    """The texts that an argument of an environment takes, if it takes names."""
    spec = specification(env_id)
    own = {"problem": problems_of(env_id), "reward": [*spec.rewards], "action": _ACTIONS[env_id], **_TABLES}
    return own.get(name)


@functools.cache
def lists_of(env_id, name):
    """The names of which an argument of an environment takes a list."""
    features = [*(TASK_FEATURES if env_id == LOSS_WEIGHTING else FEATURES)]
    own = {"observe": [*specification(env_id).observations], "features": features}
    return own.get(name)


@st.composite
def distributions(draw):
    """A row of ``DISTRIBUTIONS``, or ranges of some axes."""
    if draw(st.booleans()):
        return draw(st.sampled_from([*DISTRIBUTIONS]))
    axes = draw(st.lists(st.sampled_from([*AXES]), unique=True, max_size=3))
    ends = {"scale": (1e-2, 1e2), "size": (0.4, 1.0)}
    return {
        axis: sorted(draw(st.lists(st.floats(*ends.get(axis, (0, 1))).filter(_plain), min_size=2, max_size=2))) for axis in axes
    }


def _plain(number):
    return number == 0 or abs(number) > 1e-30


@functools.cache
def valid(env_id, name, annotation):
    """Valid values of an argument, in settings as small as :func:`tests.rollouts.small`."""
    if name == "distribution":
        return distributions()
    if name in ("tasks", "main_task"):
        return st.none()  # their names depend on the problem
    if (texts := texts_of(env_id, name)) is not None:
        return st.sampled_from(texts)
    if (names := lists_of(env_id, name)) is not None:
        return st.none() | st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)
    if name == "hidden_sizes":
        return st.none() | st.lists(st.integers(1, 16), min_size=0, max_size=3)
    if "bool" in annotation:
        return st.booleans()
    if "int" in annotation:
        counts = st.sampled_from(_COUNTS[name]) if name in _COUNTS else st.integers(1, 6)
        return counts | counts.map(np.int64)
    numbers = st.floats(1e-6, 0.99) | st.floats(2**-20, 0.96875, width=32).map(np.float32)
    return numbers.map(lambda own: own + 2) if name == "weight_range" else numbers


_EDGES = {
    "int": [1, 2, 3, 5, 100, 1000, 2000, 20_000],
    "float": [1e-37, 1e-6, 0.5, 1 - 1e-16, 1.0, 1, 1 + 1e-15, 10.0, 1e3, 1e6, 1e30, 3.4e38],
}


@functools.cache
def values(env_id, name, annotation, sound):
    """Values of an argument: valid ones, or also others, of which half are valid."""
    if sound:
        return valid(env_id, name, annotation)
    edges = _EDGES["int" if "int" in annotation else "float"]
    lists = [[], [1], [1, 1, 1], [4096], [512, 512], [2048, 2048], [1] * 100]
    kinds = {
        "edge": st.sampled_from(lists if name == "hidden_sizes" else edges),
        "wrong": st.sampled_from(_WRONG) | st.text(max_size=20) | st.integers(-3, 0) | st.floats(),
        "huge": st.sampled_from(_HUGE),
    }
    fine = valid(env_id, name, annotation)
    return st.one_of(fine, fine, kinds["edge"], fine, kinds["wrong"], kinds["huge"])


@functools.cache
def annotations(env_id):
    """The annotation of every argument that an environment's vector form takes, as a text."""
    spec = specification(env_id)
    found = {}
    for function in (MTLVectorEnv.__init__, check_arguments, spec.decide):
        hints = typing.get_type_hints(inspect.unwrap(function))
        names = inspect.signature(function).parameters
        found |= {name: str(hints[name]) for name in names if name in hints}
    taken = {*argument_names(spec), "num_envs", "render_mode", "autoreset_mode", "max_episode_steps"}
    return {name: text for name, text in found.items() if name in taken}


@functools.cache
def usual(env_id, problem="digits"):
    """Small arguments of an environment's vector form."""
    return small(problem, env_id=env_id, num_envs=2)


@st.composite
def argument_sets(draw, env_ids=tuple(ENVIRONMENTS)):
    """An environment's id, and arguments of its vector form: small ones, of which one to four are replaced."""
    env_id = draw(st.sampled_from(env_ids))
    known = annotations(env_id)
    names = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True))
    sound = draw(st.integers(0, 3)) == 0
    changed = {name: draw(values(env_id, name, known[name], sound)) for name in names}
    if draw(st.integers(0, 40)) == 0:
        changed[draw(st.sampled_from(["frameskip", "numenvs", "self_", "lr_", "Lr"]))] = 1
    base = usual(env_id)
    problem = changed.get("problem")
    if isinstance(problem, str) and problem in problems_of(env_id) and "hidden_sizes" not in changed:
        base = usual(env_id, problem)
    return env_id, base | changed


# --- policies ----------------------------------------------------------------------------------------------------------------


_NUMBERS = ["0", "1", "2", "0.5", ".5", "1e-3", "0.999", "10", "100", "1e3", "3"]
_ODD = [
    "",
    " ",
    "None",
    "null",
    "true",
    "false",
    "nan",
    "inf",
    "-1",
    "-inf",
    "a",
    "1,2",
    "[1,2]",
    "[]",
    "{}",
    '"1"',
    "1e",
    "\0",
    "é",
]
_LARGE = [
    "1e6",
    "1e9",
    "1e38",
    "1e39",
    "1e308",
    "1e400",
    "1e-320",
    "1e-38",
    "9" * 30,
    "9" * 400,
    "9" * 5000,
    "[" * 2000,
    "1," * 2000,
]
_JUNK = [
    *(
        "",
        " ",
        "+",
        ":",
        "=",
        "ew:",
        "ew+",
        "+ew",
        "nothing",
        "EW",
        "ew ",
        "../ew",
        "/dev/null",
        "/",
        ".",
        "a/b",
        "\0",
        "\n",
        "ew\0",
    ),
    *(
        "é" * 100,
        "a" * 5000,
        "a" * 300,
        "/" + "a" * 5000,
        "~" * 200,
        "a/" * 2000,
        "ew+" * 500 + "ew",
        "ew:" * 1000,
        "\ud800",
        "=1+1",
    ),
    *("constant", "constant:w=", "constant:w=1,2", "constant:w=1,2,3,4,5,6", "constant:w=" + "1," * 1000 + "1"),
]


policies = functools.cache(lambda: sorted(find_policies()))


@functools.cache
def option_names(name):
    """The options of a policy."""
    return [own for own in inspect.signature(policy_class(name)).parameters if own not in ("args", "kwargs")]


@st.composite
def options(draw, name):
    """The options of a policy as text."""
    known = option_names(name)
    chosen = (
        draw(st.lists(st.sampled_from([*known, *known, "nothing"]), max_size=3)) if known else draw(st.sampled_from([[], ["a"]]))
    )
    number = st.sampled_from(_NUMBERS)
    texts = [f":{own}={draw(st.one_of(number, number, number, st.sampled_from(_ODD), st.sampled_from(_LARGE)))}" for own in chosen]
    return "".join(texts)


@st.composite
def policy_texts(draw):
    """A policy as on the command line: names, most of them known, with options, and compositions."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_JUNK) | st.text(max_size=30))
    names = draw(st.lists(st.sampled_from(policies()), min_size=1, max_size=2 if draw(st.integers(0, 3)) == 0 else 1))
    text = "+".join(name + draw(options(name)) for name in names)
    return text if draw(st.integers(0, 30)) else text + draw(st.text(max_size=5))


def described(given):
    """Arguments that were drawn, or a policy, as a short text; of arguments, those that differ from the small ones."""
    if isinstance(given, str):
        return shown(given)[:200]
    env_id, arguments = given
    texts, known = {name: shown(value) for name, value in arguments.items()}, usual(env_id)
    return f"{env_id}: " + ", ".join(f"{name}={text[:200]}" for name, text in texts.items() if text != shown(known.get(name, ...)))
