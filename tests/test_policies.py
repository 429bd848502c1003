"""What a policy is, how one is made of a function, and how policies are named, found and told apart."""

from __future__ import annotations

import collections
import doctest
import functools
import importlib
import itertools
import logging
import random
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import softmax

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.constant import Constant
from mtl_gym.identity import function_content
from mtl_gym.policies import functions, protocol
from mtl_gym.policies.finding import find_policies, policy_class
from mtl_gym.policies.grammar import make_policy, names_and_policies, option_value, split_policies
from mtl_gym.policies.protocol import LOSSES_TO_WEIGHTS, WEIGHT_BOUND, Policy, Requirements

LOG_LOSS = {"log_loss": np.log([[4.0, 1.0], [9.0, 16.0]]).astype(np.float32)}

# --- functions ------------------------------------------------------------------------------------------------------------


def test_a_function_is_called_for_each_row_with_its_losses():
    seen = []
    with pytest.warns(RuntimeWarning, match="`function` should keep no values"):  # which `seen` is
        weights, state = mtl_gym.policy(lambda losses: [seen.append(losses), [1.0, 2.0]][1]).predict(LOG_LOSS, "memory")
    np.testing.assert_allclose(seen, [[4, 1], [9, 16]], rtol=1e-6)
    assert (weights.tolist(), weights.dtype, state) == ([[1, 2], [1, 2]], np.float32, "memory")


def test_a_function_takes_an_observation_without_rows():
    weights, _ = mtl_gym.policy(lambda losses: losses).predict({"log_loss": np.zeros(3, dtype=np.float32)})
    assert weights.tolist() == [1, 1, 1]


def test_a_function_that_changes_its_argument_changes_nothing_else():
    def spoil(losses):
        losses[:] = 7
        return losses

    obs = {"log_loss": LOG_LOSS["log_loss"].copy()}
    mtl_gym.policy(spoil).predict(obs)
    np.testing.assert_array_equal(obs["log_loss"], LOG_LOSS["log_loss"])


def test_huge_weights_are_kept_within_the_action_space():
    weights, _ = mtl_gym.policy(lambda losses: np.array([1e9, -1e9])).predict(LOG_LOSS)
    assert weights[0].tolist() == [WEIGHT_BOUND, -WEIGHT_BOUND]


@pytest.mark.parametrize(
    "answer", [1.0, [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], [1.0, np.nan], [1.0, np.inf], None, "ab", [1.0, "a"], [[1.0], [1.0, 2.0]]]
)
def test_a_wrong_answer_of_a_function_is_named(answer):
    with pytest.raises(ValueError, match="`function` should return 2 finite weights"):
        mtl_gym.policy(lambda losses: answer).predict(LOG_LOSS)


@pytest.mark.parametrize("function", [3, None, "ew", [1.0, 2.0]])
def test_what_cannot_be_called_is_no_function(function):
    with pytest.raises(TypeError, match="`function` should be callable"):
        mtl_gym.policy(function)


def test_a_function_is_a_policy_that_needs_the_losses_at_every_step():
    made = mtl_gym.policy(lambda losses: losses)
    assert isinstance(made, Policy)
    assert made.requires.arguments() == {"observe": ["log_loss"], "action": "weights", "steps_per_action": 1}


def test_tensors_are_weights_with_or_without_a_gradient():
    for answer in (torch.ones(2, requires_grad=True), [torch.tensor(1.0, requires_grad=True), 1.0]):
        assert mtl_gym.policy(lambda losses, answer=answer: answer).predict(LOG_LOSS)[0].tolist() == [[1, 1], [1, 1]]


class Mean:
    """A moving average."""

    def __init__(self):
        self.mean = np.zeros(2)

    def __call__(self, losses):
        self.mean = (self.mean + losses) / 2
        return self.mean


def test_each_training_has_its_own_function():
    mine = mtl_gym.policy(Mean, per_training=True)
    memory = mine.initial_state(np.array([5, 6]), 2)
    first, memory = mine.predict(LOG_LOSS, memory)
    np.testing.assert_allclose(first, [[2, 0.5], [4.5, 8]], rtol=1e-6)
    later, memory = mine.predict(LOG_LOSS, memory, episode_start=np.array([True, False]))
    np.testing.assert_allclose(later, [[2, 0.5], [6.75, 12]], rtol=1e-6)
    np.testing.assert_allclose(mine.predict(LOG_LOSS)[0], first, rtol=1e-6)
    single, _ = mine.predict({"log_loss": LOG_LOSS["log_loss"][0]})
    np.testing.assert_allclose(single, [2, 0.5], rtol=1e-6)


def test_the_spec_of_a_factory_is_not_that_of_a_function():
    assert mtl_gym.policy(nested, per_training=True).spec != mtl_gym.policy(nested).spec
    assert mtl_gym.policy(nested, per_training=True).spec == mtl_gym.policy(nested, per_training=True).spec
    assert mtl_gym.policy(Mean, per_training=True).spec is None


def test_a_factory_makes_functions():
    with pytest.raises(TypeError, match="`function` should return a function with per_training=True"):
        mtl_gym.policy(lambda: 3, per_training=True).initial_state(np.array([0]), 2)


def attributed(losses):
    attributed.mean = losses
    return losses


def counted(losses, calls=[0]):  # noqa: B006
    calls[0] += 1
    return losses


KEEPING = {
    "closure": lambda: (lambda kept: lambda losses: [kept.append(losses), losses][1])([]),
    "deque": lambda: (lambda kept: lambda losses: [kept.append(1), losses][1])(collections.deque([1])),
    "nested": lambda: (lambda kept: lambda losses: [kept["a"][0].add(1), losses][1])({"a": [set()]}),
    "object": Mean,
    "method": lambda: Mean().__call__,
    "partial": lambda: functools.partial(lambda kept, losses: [kept.append(1), losses][1], []),
    "attribute": lambda: attributed,
    "default": lambda: counted,
    "tensor": lambda: (lambda kept: lambda losses: [kept.add_(1), losses][1])(torch.zeros(2)),
    "count": lambda: (lambda calls: lambda losses: losses * next(calls))(itertools.count()),
    "iterator": lambda: (lambda calls: lambda losses: losses * next(calls))(iter(range(9))),
    "generator": lambda: (lambda calls: lambda losses: losses * next(calls))(number for number in itertools.count()),
    "numpy's generator": lambda: (lambda rng: lambda losses: rng.uniform(size=2))(np.random.default_rng(0)),
    "numpy's old generator": lambda: (lambda rng: lambda losses: rng.uniform(size=2))(np.random.RandomState(0)),
    "numpy's method": lambda: (lambda draw: lambda losses: draw(size=2))(np.random.default_rng(0).uniform),
    "python's generator": lambda: (lambda rng: lambda losses: losses * rng.random())(random.Random(0)),
    "torch's generator": lambda: (lambda rng: lambda losses: torch.rand(2, generator=rng))(torch.Generator()),
}


@pytest.mark.parametrize("kind", KEEPING)
def test_what_a_function_keeps_is_noticed(kind):
    with pytest.warns(RuntimeWarning, match="`function` should keep no values"):
        mtl_gym.policy(KEEPING[kind]()).predict(LOG_LOSS)


LOGGER = logging.getLogger(__name__)
RATES = {"a": [0.5, np.arange(3)], 3: torch.ones(2)}
FORGETTING = {
    "unused generator": lambda: (lambda rng: lambda losses: losses * (rng is not None))(np.random.default_rng(0)),
    "global generator": lambda: lambda losses: losses * random.random(),
    "network": lambda: (lambda net: lambda losses: net(torch.tensor(losses)))(torch.nn.Linear(2, 2).double()),
    "constants": lambda: lambda losses: losses * RATES["a"][0],
    "packages": lambda: lambda losses: [LOGGER.debug("%s", losses), softmax(losses)][1],
}


@pytest.mark.parametrize("kind", FORGETTING)
def test_a_function_that_keeps_nothing_is_no_reason_to_warn(kind):
    made = mtl_gym.policy(FORGETTING[kind]())
    with warnings.catch_warnings(record=True) as found:
        for start in (None, np.ones(2, dtype=bool), np.zeros(2, dtype=bool)):
            made.predict(LOG_LOSS, None, start)
    assert not found


def shares_a_list():
    kept = []
    return lambda: lambda losses: [kept.append(1), losses][1]


def shares_a_generator():
    rng = np.random.default_rng(0)
    return lambda: lambda losses: losses * rng.uniform()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("made", [shares_a_list, shares_a_generator])
def test_what_the_functions_of_a_factory_share_is_noticed(made, rows):
    mine = mtl_gym.policy(made(), per_training=True)
    losses = {"log_loss": LOG_LOSS["log_loss"][:rows]}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            memory = mine.initial_state(np.arange(rows), 2)
            for step in range(3):
                _, memory = mine.predict(losses, memory, np.full(rows, step == 0))
    [text] = [str(own.message) for own in found]
    assert "`function` should make functions that share no values that they change" in text


def test_functions_of_a_factory_that_share_constants_are_no_reason_to_warn():
    def make():
        mean, rng = [np.zeros(2)], np.random.default_rng(3)
        return lambda losses: [mean.append(losses), losses * RATES["a"][0] * rng.uniform()][1]

    mine, memory = mtl_gym.policy(make, per_training=True), None
    with warnings.catch_warnings(record=True) as found:
        for start in (None, np.ones(2, dtype=bool), np.array([False, True]), np.zeros(2, dtype=bool)):
            _, memory = mine.predict(LOG_LOSS, memory, start)
    assert not found


def test_a_memory_is_no_matter_in_a_training_alone():
    mine = mtl_gym.policy(Mean())
    with warnings.catch_warnings(record=True) as found:
        for _ in range(4):
            mine.predict({"log_loss": LOG_LOSS["log_loss"][:1]})
    assert not found


def test_a_memory_that_begins_late_is_noticed():
    calls = iter(range(100))
    kept = []
    mine = mtl_gym.policy(lambda losses: [kept.append(1) if next(calls) > 20 else None, losses][1])
    with pytest.warns(RuntimeWarning, match="`function` should keep no values"):
        [mine.predict(LOG_LOSS) for _ in range(20)]


def test_the_spec_of_a_function_tells_its_attributes():
    def weights(losses):
        return weights.rate * losses

    specs = []
    for rate in (1.0, 2.0, 1.0):
        weights.rate = rate
        specs.append(mtl_gym.policy(weights).spec)
    assert specs[0] == specs[2] != specs[1]


def nested(losses):
    return np.array([(lambda loss: 1 / loss)(loss) for loss in losses])


def rising(losses):
    """Its docstring is of no account."""

    def weight(loss):
        """Nor is this one."""
        return loss * 2  # nor a remark

    return np.array([weight(loss) for loss in losses])


REWRITTEN = """
import numpy as np


def rising(losses):
    def weight(loss): return (loss
        * 2)

    return np.array([weight(loss) for loss in losses])
"""


@pytest.mark.parametrize(
    ("old", "new"), [("", ""), ("* 2", "* 3"), ("* 2", "+ 2"), ("for loss in", "for loss in -"), ("np.array", "np.asarray")]
)
def test_the_spec_of_a_function_tells_what_it_does_and_not_how_it_is_written(old, new):
    space = {}
    exec(REWRITTEN.replace(old, new), space)
    assert (mtl_gym.policy(space["rising"]).spec == mtl_gym.policy(rising).spec) == (old == new)


def test_the_spec_of_a_function_tells_the_order_of_its_arguments():
    specs = [function_content(function) for function in (lambda one, other: one, lambda other, one: one)]
    assert specs[0] != specs[1]


def test_the_spec_of_a_function_tells_the_names_of_the_arguments_that_it_passes():
    specs = [
        mtl_gym.policy(lambda losses: np.clip(losses, a_min=1.0, a_max=2.0)).spec,
        mtl_gym.policy(lambda losses: np.clip(losses, a_max=1.0, a_min=2.0)).spec,
        mtl_gym.policy(lambda losses: np.clip(losses, a_min=1.0, a_max=2.0)).spec,
    ]
    assert specs[0] is not None
    assert specs[0] == specs[2] != specs[1]


def test_the_spec_of_a_function_does_not_depend_on_the_process():
    spec = {"function": "nested", "code": mtl_gym.policy(nested).spec["code"]}
    again = importlib.util.spec_from_file_location("copy_of_these_tests", __file__)
    module = importlib.util.module_from_spec(again)
    sys.modules.pop("copy_of_these_tests", None)
    again.loader.exec_module(module)
    assert mtl_gym.policy(module.nested).spec == spec


@pytest.mark.parametrize("module", [functions, protocol], ids=lambda module: module.__name__)
def test_the_examples_in_the_manual_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# --- requirements ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requires", "arguments"),
    [
        (Requirements(), {}),
        (Requirements(observe=("gap", "lr")), {"observe": ["gap", "lr"]}),
        (Requirements(action="softmax", steps_per_action=5), {"action": "softmax", "steps_per_action": 5}),
        (LOSSES_TO_WEIGHTS, {"observe": ["log_loss"], "action": "weights", "steps_per_action": 1}),
        (Requirements(action="residual", env_kwargs={"rule": "si"}), {"action": "residual", "rule": "si"}),
    ],
)
def test_requirements_become_arguments(requires, arguments):
    assert requires.arguments() == arguments
    assert hash(requires) == hash(requires)


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ew", ["ew"]),
        ("ew,si", ["ew", "si"]),
        (" ew , si ,", ["ew", "si"]),
        ("", []),
        ("constant:w=1,2,3,si", ["constant:w=1,2,3", "si"]),
        ("constant:w=-1,-.5,+2,ew", ["constant:w=-1,-.5,+2", "ew"]),
        ("constant:w=1, 2, 3, si", ["constant:w=1, 2, 3", "si"]),
        ("constant:w=[1,2],ew", ["constant:w=[1,2]", "ew"]),
        ("constant:w=1,2,3+cagrad", ["constant:w=1,2,3+cagrad"]),
        ("constant:w=1,2e+3 + cagrad:c=1,ew", ["constant:w=1,2e+3 + cagrad:c=1", "ew"]),
        ("imtl-l,dwa:temperature=0.5", ["imtl-l", "dwa:temperature=0.5"]),
    ],
)
def test_a_comma_before_a_number_continues_the_value(text, parts):
    assert split_policies(text) == parts


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
numbers = st.one_of(st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False))
options = st.tuples(names, st.lists(numbers, min_size=1, max_size=4))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, st.lists(options, max_size=2)), min_size=1, max_size=5))
def test_splitting_undoes_joining(items):
    texts = [":".join([name, *[f"{key}={','.join(map(repr, values))}" for key, values in own]]) for name, own in items]
    assert split_policies(",".join(texts)) == texts
    assert split_policies(" , ".join(texts)) == texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("true", True),
        ("null", None),
        ("1,2,3", [1, 2, 3]),
        ("1, -2", [1, -2]),
        ("[1,2]", [1, 2]),
        ('{"noise": [0, 1]}', {"noise": [0, 1]}),
        ('"8"', "8"),
        ("cosine", "cosine"),
        (".5", 0.5),
        ("1,.5", [1, 0.5]),
        ("+1,-1", [1, -1]),
    ],
)
def test_values_are_json_where_they_can_be(text, value):
    assert option_value(text) == value


def test_options_reach_the_policy():
    assert make_policy(" constant:w=1,2,3 ").w.tolist() == [1, 2, 3]
    assert make_policy("dwa:temperature=0.5").temperature == 0.5


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("sy", ["Did you mean 'si'", *BASELINES]),
        ("IGB", ["Did you mean 'igb'", "--search"]),
        ("", ["one of"]),
        ("dwa:temprature=2", ["temprature", "(temperature"]),
        ("ew:w=3", ["none"]),
        ("constant", ["(w)"]),
        ("constant:w", ["name:option=value"]),
        ("constant:=3", ["name:option=value"]),
    ],
)
def test_a_wrong_name_or_option_lists_the_known_ones(text, messages):
    with pytest.raises(ValueError, match="`policies`") as error:
        make_policy(text)
    assert all(message in str(error.value) for message in messages)


def test_a_wrong_name_lists_those_of_the_environment():
    with pytest.raises(ValueError, match="Did you mean 'igb'") as error:
        make_policy("igbb", "mtl_gym/LossWeighting-v0")
    listed = str(error.value).partition("Received")[0]
    assert "cagrad" in listed
    assert not [name for name in ("stg-mtl", "slgrad", "mtsl") if name in listed]


@pytest.mark.parametrize("name", BASELINES)
def test_every_row_can_be_found_and_imported(name):
    assert find_policies()[name] == BASELINES[name]
    assert policy_class(name) is not None
    assert callable(make_policy(f"{name}:w=1,2" if name == "constant" else name).predict)


def test_lists_texts_and_mappings_give_the_same_policies():
    for given_as in ("ew,constant:w=1,2", ["ew", "constant:w=1,2"], {"ew": "ew", "constant:w=1,2": "constant:w=1,2"}):
        made = names_and_policies(given_as)
        assert list(made) == ["ew", "constant:w=1,2"]
        assert isinstance(made["constant:w=1,2"], Constant)


def named(losses):
    return losses


def test_labels_of_policies_are_their_names():
    assert list(names_and_policies([mtl_gym.policy(named), Constant([1.0]), mtl_gym.policy(lambda losses: losses)])) == [
        "named",
        "Constant",
        "function",
    ]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("", ValueError),
        ([], ValueError),
        ({}, ValueError),
        (["ew", "ew"], ValueError),
        ([Constant([1.0]), Constant([2.0])], ValueError),
        ([3], TypeError),
        ({"own": None}, TypeError),
        ([Constant], TypeError),
        (3, TypeError),
        (None, TypeError),
        (Constant([1.0]), TypeError),
    ],
)
def test_wrong_policies_are_refused_by_name(wrong, error):
    with pytest.raises(error, match="`policies`"):
        names_and_policies(wrong)


@pytest.mark.parametrize(
    "kept",
    [torch.ones(2, dtype=torch.bfloat16), torch.ones(2).to_sparse(), torch.empty(2, device="meta"), 10**5000],
    ids=["bfloat16", "sparse", "meta", "digits"],
)
def test_values_without_bytes_are_no_reason_to_stop(kept):
    mine = mtl_gym.policy(lambda losses: losses * (kept is not None))
    assert mine.predict({"log_loss": np.zeros((1, 2))})[0].shape == (1, 2)


def test_a_function_that_cannot_be_identified_has_no_spec():
    endless = []
    endless.append(endless)
    assert mtl_gym.policy(lambda losses: losses * len(endless)).spec is None
