import copy
import pickle
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import make_trainer, rows_of, same

from mtl_gym.training.state import State

N = 4
DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)


def filled(seed=0, rows=N):
    """A state of several parts, with numbers in it; infinities and NaN among them."""
    state, generator = State(rows), torch.Generator().manual_seed(seed)
    for place, dtype in enumerate(DTYPES):
        values = torch.randn(rows, 2, 3, generator=generator) * 10
        if dtype.is_floating_point:
            values[rows // 2, 0, 0], values[0, 1, 1] = torch.nan, torch.inf
        state.add(f"part {place}", (2, 3), dtype).copy_(values.to(dtype))
    state.add("alone").copy_(torch.randn(rows, generator=generator))
    state.add_objects("objects")[:] = [f"{seed} {row}" for row in range(rows)]
    return state


def objects(state, rows):
    return [state.clone()["objects"][row] for row in rows]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_gets_zeros_with_a_replica_axis_that_are_its_own(dtype):
    state = State(3)
    added = state.add("own", (2, 5), dtype)
    assert (added.shape, added.dtype) == ((3, 2, 5), dtype)
    assert not added.any()
    assert state["own"] is added
    assert "own" in state
    assert "other" not in state
    assert state.add("scalar").shape == (3,)
    assert state.add_objects("list") == [None] * 3
    assert "list" in state


@pytest.mark.parametrize("first", ["add", "add_objects"])
@pytest.mark.parametrize("second", ["add", "add_objects"])
def test_a_name_that_is_taken_is_refused(first, second):
    state = State(2)
    kept = getattr(state, first)("own")
    with pytest.raises(ValueError, match="`name` should be new: another part has registered it"):
        getattr(state, second)("own")
    assert list(state.clone()) == ["own"]
    assert same(kept, state.clone()["own"])


def test_a_part_keeps_hold_of_its_tensors_whatever_is_done():
    state = filled()
    held, listed = state["alone"], state.add_objects("more")
    kept = state.clone()
    state.reset([0])
    state.copy_rows([1], [2])
    state.load(kept)
    assert state["alone"] is held
    listed[0] = "seen"
    assert state.clone()["more"][0] == "seen"


def test_reset_sets_rows_to_zeros_and_none():
    state = filled()
    state.reset([1, 3])
    kept = state.clone()
    assert all(not values.any() for values in rows_of(kept, [1, 3]).values())
    assert objects(state, range(N)) == ["0 0", None, "0 2", None]


def test_a_clone_does_not_change_with_the_state_nor_the_state_with_the_clone():
    state = filled()
    kept = state.clone()
    copied = copy.deepcopy(kept)
    state.reset(range(N))
    assert same(kept, copied)
    state.load(kept)
    kept["alone"].fill_(7)
    kept["objects"][0] = "other"
    assert same(state.clone(), copied)


def test_load_goes_back_bit_for_bit_and_takes_another_states_clone():
    state, other = filled(1), filled(2)
    other.load(state.clone())
    assert same(state.clone(), other.clone())


def test_copied_rows_may_swap_and_repeat_their_sources():
    state = filled()
    before = state.clone()
    state.copy_rows([1, 0, 0], [0, 1, 3])
    assert same(rows_of(state.clone(), [0, 1, 2, 3]), rows_of(before, [1, 0, 2, 0]))
    assert objects(state, range(N)) == ["0 1", "0 0", "0 2", "0 0"]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copied_state_is_the_same_and_goes_its_own_way(make):
    state = filled()
    other = make(state)
    assert same(state.clone(), other.clone())
    other.reset([0])
    assert not same(state.clone(), other.clone())


# --- what is refused, before anything changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[4], [-1], [0, 7], [1, 1]])
def test_rows_that_are_not_there_are_not_reset(rows):
    state = filled()
    before = state.clone()
    with pytest.raises(ValueError, match=re.escape(f"`rows` should be rows from 0 to 3, each once. Received rows={rows}.")):
        state.reset(rows)
    assert same(before, state.clone())


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([0], [1, 2], "`target` should be as many rows as the 1 of `source`"),
        ([0, 1], [2], "`target` should be as many rows as the 2 of `source`"),
        ([0, 4], [1, 2], "`source` should be rows from 0 to 3. Received"),
        ([-1], [1], "`source` should be rows from 0 to 3. Received"),
        ([0], [4], "`target` should be rows from 0 to 3, each once"),
        ([0, 1], [2, 2], "`target` should be rows from 0 to 3, each once"),
    ],
)
def test_rows_that_cannot_be_copied_change_nothing(source, target, message):
    state = filled()
    before = state.clone()
    with pytest.raises(ValueError, match=message):
        state.copy_rows(source, target)
    assert same(before, state.clone())


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: without(kept, "alone"), r"`state\['alone'\]` should be .*same arguments.*None"),
        (lambda kept: without(kept, "objects"), r"`state\['objects'\]` should be 4 objects"),
        (lambda kept: kept | {"objects": ["a"]}, r"`state\['objects'\]` should be 4 objects"),
        (lambda kept: kept | {"alone": torch.zeros(3)}, r"`state\['alone'\]` should be \(\(4,\), torch.float32\)"),
        (lambda kept: kept | {"alone": torch.zeros(N, dtype=torch.int64)}, r"`state\['alone'\]`.*torch.int64"),
        (lambda kept: kept | {"alone": 3.0}, r"`state\['alone'\]`.*3.0"),
        (lambda kept: filled(rows=3).clone(), r"`state\['part 0'\]` should be \(\(4, 2, 3\), torch.float32\)"),
        (lambda kept: {}, r"`state\['part 0'\]`"),
    ],
)
def test_the_state_of_other_trainings_is_refused_before_anything_changes(change, message):
    state, other = filled(0), filled(1)
    before = state.clone()
    with pytest.raises(ValueError, match=message):
        state.load(change(other.clone()))
    assert same(before, state.clone())


# --- rows that are not named ------------------------------------------------------------------------------------------------

ROWS = st.lists(st.integers(0, N - 1), unique=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 100))
def test_rows_that_are_not_named_stay_bitwise_the_same(data, seed):
    state, named = filled(seed), set()
    before, original = state.clone(), {row: row for row in range(N)}
    for _ in range(data.draw(st.integers(1, 4))):
        target = data.draw(ROWS)
        if data.draw(st.booleans()):
            state.reset(target)
            original |= dict.fromkeys(target)
        else:
            source = data.draw(st.lists(st.integers(0, N - 1), min_size=len(target), max_size=len(target)))
            state.copy_rows(source, target)
            original |= dict(zip(target, [original[row] for row in source], strict=True))
        named |= set(target)
    others = [row for row in range(N) if row not in named]
    assert same(rows_of(before, others), rows_of(state.clone(), others))
    assert objects(state, others) == [before["objects"][row] for row in others]
    for row, source in original.items():  # and the others are what they were made of
        if source is None:
            assert not any(values.any() for values in rows_of(state.clone(), [row]).values())
            assert objects(state, [row]) == [None]
        else:
            assert same(rows_of(state.clone(), [row]), rows_of(before, [source]))
            assert objects(state, [row]) == [before["objects"][source]]


def test_a_state_with_surplus_parts_is_refused():
    trainer = make_trainer()
    before = trainer.clone()
    with pytest.raises(ValueError, match=r"`state\['other'\]` should be nothing"):
        trainer.load({**before, "other": torch.zeros(3)})
    assert same(trainer.clone(), before)
