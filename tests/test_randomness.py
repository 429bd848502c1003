"""Streams: one's own numbers from the global generators, which nobody else notices."""

from __future__ import annotations

import copy
import doctest
import pickle
import random

import numpy as np
import pytest
import torch

from mtl_gym.agents import randomness
from mtl_gym.agents.randomness import Stream, global_state
from tests.rollouts import same


def draw():
    """One number of each global generator, and a normal one, which numpy draws in pairs."""
    return [torch.rand(()).item(), np.random.random(), np.random.standard_normal(), random.random()]  # noqa: NPY002


def drawn(stream):
    with stream:
        return draw()


@pytest.fixture(autouse=True)
def _unchanged():
    before = global_state()
    yield
    assert same(before, global_state())


def test_a_stream_depends_on_its_seed_alone():
    first = drawn(Stream(3))
    with Stream(4):
        draw()
        assert drawn(Stream(3)) == first
    assert all(mine != other for mine, other in zip(first, drawn(Stream(4)), strict=True))


def test_a_stream_goes_on_where_it_stood():
    with Stream(3):
        wanted = draw() + draw() + draw()
    stream = Stream(3)
    assert drawn(stream) + drawn(stream) + drawn(Stream(stream.state)) == wanted


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])
def test_a_copy_goes_on_by_itself(copied):
    stream = Stream(3)
    drawn(stream)
    twin = copied(stream)
    assert drawn(twin) == drawn(stream)


def test_an_exception_leaves_the_generators_as_they_were():
    stream = Stream(3)
    with pytest.raises(KeyError), stream:
        {}[random.random()]
    assert drawn(stream) != drawn(Stream(3))


def test_streams_may_lie_within_each_other_but_not_within_themselves():
    outer, wanted = Stream(3), drawn(Stream(3))
    with outer:
        inner = drawn(Stream(4))
        assert draw() == wanted
        with pytest.raises(RuntimeError, match="within itself"), outer:
            pass
    assert inner == drawn(Stream(4))


def test_large_seeds_differ_in_all_of_their_bits():
    assert drawn(Stream(2**62 + 1)) != drawn(Stream(1))
    with pytest.raises(ValueError, match="non-negative"):
        Stream(-1)


def test_the_example_runs():
    result = doctest.testmod(randomness)
    assert result.attempted > 0
    assert result.failed == 0
