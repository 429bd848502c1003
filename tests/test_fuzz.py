"""Random arguments and policies: ``benchmarks/fuzz.py`` tries thousands."""

import json

import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.measuring import RESULTS
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import argument_names
from tests import attempts, fuzzing
from tests.rollouts import IDS


@pytest.fixture(scope="module", autouse=True)
def problems():
    """All problems are loaded before the strategies need them, since loading draws from the global generator."""
    return [fuzzing.problems_of(env_id) for env_id in IDS]


def budget(count):
    """Settings of so many examples, always the same ones."""
    return settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@budget(8)
@given(fuzzing.argument_sets())
def test_random_arguments_are_taken_or_refused(given):
    assert not attempts.attempt_env(*given).fault


@pytest.mark.slow
@budget(300)
@given(fuzzing.argument_sets())
def test_what_is_taken_can_be_stepped(given):
    found = attempts.attempt_env(*given)
    assert not found.fault
    if found.outcome == "made" and len(fuzzing.described(given)) % 4 == 0 and attempts.quick(found.made):
        assert not attempts.step_env(found.made)


@budget(30)
@given(fuzzing.policy_texts())
def test_random_policies_are_taken_or_refused(text):
    assert not attempts.attempt_policy(text).fault


@pytest.mark.parametrize("env_id", IDS)
def test_every_argument_is_fuzzed(env_id):
    assert set(argument_names(specification(env_id))) <= set(fuzzing.annotations(env_id))


def test_every_policy_is_fuzzed():
    assert set(BASELINES) <= set(fuzzing.policies())
    assert all("lr" in fuzzing.option_names(name) for name in ("uw", "famo", "gradnorm"))


@pytest.mark.parametrize("name", ["arguments", "policies"])
def test_nothing_that_was_found_is_left(name):
    stored = json.loads((RESULTS / "fuzz.json").read_text())[name]
    assert stored["made"] + stored["refused"] == 10_000
    assert stored["stepped"] + stored.get("too large to step", 0) >= stored["made"] // 10
    assert not stored["findings"]
