"""The contract of decisions, over all kinds and modes; and decisions that are composed as no class could inherit them."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from rollouts import (
    IDS,
    LAYER_MERGING,
    LOSS_WEIGHTING,
    SAMPLE_WEIGHTING,
    TASK_GROUPING,
    differing,
    make_trainer,
    poison,
    random_actions,
    rows_of,
    same,
    slow_unless,
    small,
    train,
)

from mtl_gym.decisions.base import ACTION_MASK, TrainingDecision
from mtl_gym.decisions.grouping.known_groups import _remembered
from mtl_gym.decisions.grouping.modes import GROUPINGS
from mtl_gym.decisions.merging.decision import Merging, branched_model
from mtl_gym.decisions.merging.structures import MERGE_ACTIONS, StructureActions
from mtl_gym.decisions.merging.transfer import Transfer
from mtl_gym.decisions.sample_rules import SAMPLE_ACTIONS, SampleWeighing
from mtl_gym.decisions.sample_weights import SampleWeights
from mtl_gym.decisions.task_rules import ACTIONS, SCOPES, TaskWeighing
from mtl_gym.decisions.task_weights import TaskWeights
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.meter import Meter
from mtl_gym.envs.observations import SIZES
from mtl_gym.models.branched import ASSIGN
from mtl_gym.training.probes import BASE, Probe, Reading

MODES = [
    *((LOSS_WEIGHTING, {"action": action}) for action in ACTIONS),
    *((LOSS_WEIGHTING, {"scope": scope}) for scope in SCOPES if scope != "all"),
    (LOSS_WEIGHTING, {"gradient_ema": 0.5}),
    *((SAMPLE_WEIGHTING, {"action": action}) for action in SAMPLE_ACTIONS),
    *((LAYER_MERGING, {"action": action, "alignment": 0.5}) for action in MERGE_ACTIONS),
    *((TASK_GROUPING, {"action": action}) for action in GROUPINGS),
]
ALL = torch.ones(3, dtype=torch.bool)


def specified(env_id, own):
    """Specification and checked arguments of three tasks; everything is observed that the mode has."""
    spec = specification(env_id)
    unsuited = spec.unsuited({**spec.own_arguments, **own})
    observe = [name for name in spec.observations if name not in unsuited]
    steps = 1 if own.get("action") == "weights" and env_id == SAMPLE_WEIGHTING else 2
    others = {"steps_per_action": steps, "train_steps": 8, "num_tasks": 3, "observe": observe}
    return spec, check_arguments(spec, **small(env_id=env_id, **others))


def decision_of(env_id, ids=(3, 4, 5), **own):
    """A decision whose rows have begun these instances."""
    spec, common = specified(env_id, own)
    decision = spec.decide(common, len(ids), **own)
    decision.trainings.begin(range(len(ids)), ids)
    decision.begin(range(len(ids)))
    return decision


def metered(env_id, **own):
    """A decision, its meter and what is known at first; all that the environment can show is needed."""
    spec, common = specified(env_id, own)
    decision = decision_of(env_id, **own)
    rows = (spec.observations[name] for name in common.observe)
    needs = {need for row in (*rows, *spec.rewards.values()) for need in row.needs}
    meter = Meter(decision, needs, reward_every=common.reward_every)
    return decision, meter, meter.first(ALL)


def action_of(decision, seed=0):
    """Random actions (N, ...) within the space; some are masked."""
    chosen = [random_actions(decision.space, 1, seed=seed + row)[0] for row in range(3)]
    return torch.from_numpy(np.stack(chosen))


def played(decision, meter, view, decisions=1):
    """What is known after some decisions in all rows."""
    for seed in range(decisions):
        decision.apply(action_of(decision, seed), ALL, view)
        view = meter.next(view, ALL)
    return view


def passes(value):
    """A cost (N,), of a number or one for each row."""
    return torch.as_tensor(value, dtype=torch.float32).expand(3)


def charges(before, after, *, own=("passes",)):
    """What differs of two clones, but for the marks of what has been computed."""
    return [name for name in before if not name.startswith("charged ") and name not in own and not same(before[name], after[name])]


# --- what can be measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_probes_return_what_is_wanted_with_its_cost_and_change_no_training(env_id, own):
    decision, meter, view = metered(env_id, **own)
    played(decision, meter, view)
    names = []
    for probe in decision.probes():
        wanted = [name for name in probe.names if env_id != TASK_GROUPING or name not in ("maps", "map_distances")]
        before = decision.trainings.clone()
        reading = probe.measure(wanted)
        assert isinstance(reading, Reading)
        assert set(reading.values) == set(wanted)
        assert all(len(values) == 3 and isinstance(values, torch.Tensor) for values in reading.values.values())
        assert (passes(reading.forward) >= 0).all()
        assert (passes(reading.backward) >= 0).all()
        assert not charges(before, decision.trainings.clone(), own=())
        assert set(probe.periodic) <= set(probe.names)
        names += probe.names
    assert len(names) == len(set(names))
    assert {*decision.needs} - {BASE} <= {*names}  # which is recorded, not measured


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_the_meter_charges_the_probes_costs_to_those_that_play(env_id, own):
    decision, meter, view = metered(env_id, **own)
    twin, other, again = metered(env_id, **own)
    active = torch.tensor([True, False, True])
    decision.apply(action_of(decision), active, view)
    twin.apply(action_of(twin), active, again)
    before, expected = decision.trainings.ledger.passes.clone(), torch.zeros(3, 2)
    for probe in twin.probes():
        wanted = [name for name in probe.names if name in other._needs]
        if wanted and not probe.final:
            _, forward, backward = probe.measure(wanted)
            expected += torch.stack([passes(forward), passes(backward)], dim=1)
    after = meter.next(view, active)
    torch.testing.assert_close(decision.trainings.ledger.passes - before, expected * active[:, None])
    for name, values in after.now.items():
        assert same(values[1], view.now[name][1]), name


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_lengths_of_what_can_be_observed_are_told(env_id, own):
    decision, _, view = metered(env_id, **own)
    spec, common = specified(env_id, own)
    known = {size: length(3, common.recipe.batch_size) for size, (_, length) in SIZES.items()} | decision.sizes()
    for name in common.observe:
        row = spec.observations[name]
        assert row.function(view).reshape(3, -1).shape[1] == known[row.size] > 0, name


# --- what actions do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "own"), MODES)
@pytest.mark.parametrize("decided", slow_unless(bool, [0, 1]))
def test_rows_that_do_not_play_are_left_bit_for_bit(env_id, own, decided):
    decision, meter, view = metered(env_id, **own)
    view = played(decision, meter, view, decided)
    before = decision.trainings.clone()
    decision.apply(action_of(decision, 7), torch.tensor([False, True, False]), view)
    after = decision.trainings.clone()
    assert not differing(rows_of(before, [0, 2]), rows_of(after, [0, 2]))
    assert differing(rows_of(before, [1]), rows_of(after, [1]))


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_actions_of_rows_that_do_not_play_do_not_matter(env_id, own):
    twins = [metered(env_id, **own) for _ in range(2)]
    for seed, (decision, _, view) in enumerate(twins):
        actions = action_of(decision)
        actions[[0, 2]] = action_of(decision, seed + 20)[[0, 2]]
        decision.apply(actions, torch.tensor([False, True, False]), view)
    assert same(*(decision.trainings.clone() for decision, _, _ in twins))


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_a_row_that_has_diverged_leaves_the_others_bit_for_bit(env_id, own):
    answers = []
    for spoilt in (False, True):
        decision, meter, view = metered(env_id, **own)
        if spoilt:
            if env_id == TASK_GROUPING:
                decision.trainings.state["results"][1] = torch.nan
            else:
                poison(decision.trainings, 1, torch.nan)
        decision.apply(action_of(decision), ALL, view)
        view = meter.next(view, ALL)
        answers.append((rows_of(decision.trainings.clone(), [0, 2]), meter.finite(view).tolist()))
    assert not differing(answers[0][0], answers[1][0])
    assert [own for _, own in answers] == [[True] * 3, [True, False, True]]


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_progress_goes_from_nothing_to_the_whole(env_id, own):
    decision, meter, view = metered(env_id, **own)
    seen = [decision.progress()]
    for _ in range(8):
        if bool((seen[-1] >= 1).all()):
            break
        masks = decision.masks(view) if decision.masked and not isinstance(decision.space, Box) else None
        actions = action_of(decision) if masks is None else masks.int().argmax(1)
        decision.apply(actions, ALL, view)
        view = meter.next(view, ALL)
        seen.append(decision.progress())
    assert seen[0].tolist() == [0] * 3
    assert seen[-1].tolist() == [1] * 3
    assert all((late > early).all() for early, late in itertools.pairwise(seen))


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_masks_are_of_the_actions_that_are_valid(env_id, own):
    decision, _, view = metered(env_id, **own)
    assert decision.masked == (env_id in (LAYER_MERGING, TASK_GROUPING))
    if not decision.masked:
        with pytest.raises(RuntimeError, match="has no masks: all of its actions are valid"):
            decision.masks(view)
        return
    masks = decision.masks(view)
    assert masks.dtype == torch.bool
    assert masks.any(1).all()
    if ACTION_MASK in view.now:
        assert same(masks, view[ACTION_MASK])
    if isinstance(decision.space, Box):
        return
    assert masks.shape == (3, decision.space.n)
    for valid in (True, False):
        rows = (masks if valid else ~masks).int().argmax(1)
        allowed = masks.gather(1, rows[:, None])[:, 0]
        decision.apply(rows, ALL, view)
        assert decision.infos(view)["invalid_action"].tolist() == (~allowed).tolist()
        decision.trainings.begin(range(3), (3, 4, 5))
        decision.begin(range(3))


# --- what is told -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_infos_are_one_number_for_each_row_and_always_the_same_ones(env_id, own):
    decision, meter, view = metered(env_id, **own)
    known = [decision.infos(view)]
    for seed in range(2):
        decision.apply(action_of(decision, seed), ALL, view)
        view = meter.next(view, ALL)
        known.append(decision.infos(view))
    decision.trainings.begin([1], [9])
    decision.begin([1])
    known.append(decision.infos(view))
    for infos in known:
        assert all(isinstance(values, torch.Tensor) and values.shape == (3,) for values in infos.values())
        assert [(name, values.dtype) for name, values in infos.items()] == [(n, v.dtype) for n, v in known[0].items()]
    assert known[0]


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_outcomes_are_json_plain_and_change_nothing(env_id, own):
    decision, meter, view = metered(env_id, **own)
    for decisions in range(2):
        view = played(decision, meter, view, decisions)
        before = decision.trainings.clone()
        outcomes = [decision.outcome(row) for row in range(3)]
        assert json.loads(json.dumps(outcomes, allow_nan=False)) == outcomes
        assert same(before, decision.trainings.clone())
    columns = {column.key or column.name for column in specification(env_id).columns}
    assert columns - {"corrupted"} <= set(outcomes[0])  # what comparisons measure beyond


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_the_bonus_is_a_number_for_each_row_if_there_is_one(env_id, own):
    decision, meter, view = metered(env_id, **own)
    after = played(decision, meter, view)
    bonus = decision.bonus(after, view)
    assert (bonus is None) == (env_id in (LOSS_WEIGHTING, SAMPLE_WEIGHTING))
    assert bonus is None or (bonus.shape == (3,) and bool(torch.isfinite(bonus).all()))


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_traces_are_tables_of_tasks(env_id, own):
    decision, meter, view = metered(env_id, **own)
    played(decision, meter, view)
    assert all(values.shape == (3, 3) for values in decision.traces.values())
    assert set(decision.traces) == ({"right", "wrong", "auc"} if env_id == SAMPLE_WEIGHTING else set())


# --- beginning and keeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_what_begins_anew_is_as_new_and_leaves_the_others_alone(env_id, own):
    decision, meter, view = metered(env_id, **own)
    view = played(decision, meter, view)
    before, infos = decision.trainings.clone(), decision.infos(view)
    fresh, _, first = metered(env_id, **own)
    decision.trainings.begin([1], [4])
    decision.begin([1])
    after = decision.trainings.clone()
    marks = {"passes"} | {name for name in after if name.startswith("charged ")}  # of what has been measured at first
    others = {name: table for name, table in fresh.trainings.clone().items() if name not in marks}
    assert not differing(rows_of({name: after[name] for name in others}, [1]), rows_of(others, [1]))
    assert not differing(rows_of(before, [0, 2]), rows_of(after, [0, 2]))
    assert same(decision.progress()[1], fresh.progress()[1])
    begun = meter.first(torch.tensor([False, True, False])).where(torch.tensor([False, True, False]), view)
    for name, values in decision.infos(begun).items():
        assert same(values[1], fresh.infos(first)[name][1]), name
        assert same(values[[0, 2]], infos[name][[0, 2]]), name


@pytest.mark.parametrize(
    "clone",
    [pytest.param(copy.deepcopy, marks=pytest.mark.slow), lambda made: pickle.loads(pickle.dumps(made))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize(("env_id", "own"), [mode for mode in MODES if "gradient_ema" not in mode[1]])
def test_copies_go_on_bit_for_bit(env_id, own, clone):
    decision, meter, view = metered(env_id, **own)
    view = played(decision, meter, view)
    # Environments are kept whole: a class that holds the decision and its meter.
    other = clone((decision, meter, view)) if env_id != TASK_GROUPING else copy.deepcopy((decision, meter, view))
    first, second = played(decision, meter, view), played(*other)
    assert same(decision.trainings.clone(), other[0].trainings.clone())
    assert same(first.now, second.now)


@pytest.mark.parametrize(("env_id", "own"), MODES)
def test_a_decisions_own_tensors_are_kept_by_the_state(env_id, own):
    decision, meter, view = metered(env_id, **own)
    other = decision_of(env_id, ids=(6, 7, 8), **own)
    view = played(decision, meter, view)
    other.trainings.load(decision.trainings.clone())
    _remembered.clear()
    for one in (decision, other):
        one.apply(action_of(one, 3), ALL, view)
    assert same(decision.trainings.clone(), other.trainings.clone())
    assert same(decision.outcome(2), other.outcome(2))
    assert not isinstance(decision, TrainingDecision) or same(decision.last_weights, other.last_weights)


@pytest.mark.parametrize("env_id", IDS)
def test_ids_of_training_instances_are_drawn_from_the_stream_alone(env_id):
    decision = decision_of(env_id)
    draws = [[decision.draw_id(np.random.default_rng(seed)) for _ in range(2)] for seed in (1, 2)]
    assert draws[0] == [draws[0][0]] * 2
    assert draws[0][0] != draws[1][0]
    assert all(2**31 <= id < 2**62 for own in draws for id in own)


# --- several decisions on the same trainings ----------------------------------------------------------------------------

TASKS = ["digit", "parity", "angle", "clean"]


def merged(*, by_samples=False):
    """Trainings whose layers a decision of merging has merged, and that decision; digit and parity share the first stage."""
    options = {"model": branched_model, "by_samples": by_samples}
    settings = {"tasks": TASKS, "hidden_sizes": [8, 8], "train_steps": 20, "optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    trainer = make_trainer(ids=(1, 2, 3), env_id=LAYER_MERGING, begin=False, options=options, **settings)
    transfer = Transfer(trainer, kind="average", steps=4, average_moments=False)
    merging = Merging(trainer, 2, StructureActions(action="merge", similarity="cka", num_tasks=4), transfer)
    return trainer, merging


def begin(trainer, *decisions):
    """Begins three instances, merges, and returns the view of the last decision."""
    trainer.begin(range(3), (1, 2, 3))
    for decision in decisions:
        decision.begin(range(3))
    views = [Meter(own, own.needs, reward_every=2) for own in decisions]
    merging = decisions[0]
    first = views[0].first(ALL)
    merging.apply(torch.zeros(3, dtype=torch.int64), ALL, first)  # before the first step nothing can be merged
    labels = [0, 0, 2, 3]
    pair = torch.tensor([_partition_number(labels)] * 3)
    merging.apply(pair, ALL, views[0].next(first, ALL))
    assert trainer.replicas.buffers[ASSIGN][:, 0].tolist() == [labels] * 3
    assert merging.used().max() < 1
    return views[1].first(ALL)


def _partition_number(labels):
    from mtl_gym.decisions.partitions import partitions

    return partitions(len(labels)).tolist().index(labels)


def moved(before, trainer):
    """Which copies (K,) of the first stage have moved in all rows."""
    change = (trainer.replicas.parameters["stage0"].detach() - before).abs().flatten(2).sum(2)
    return (change > 0).all(0).tolist()


def test_weights_of_tasks_act_on_trainings_whose_layers_are_merged():
    trainer, merging = merged()
    weighting = TaskWeights(trainer, 2, TaskWeighing(trainer.recipe.num_tasks, action="weights"))
    view = begin(trainer, merging, weighting)
    kept = trainer.clone()
    for weights, copies in (([1, 0, 0, 0], [True, False, False, False]), ([0, 1, 1, 0], [True, False, True, False])):
        trainer.load(kept)
        before, losses = trainer.replicas.parameters["stage0"].detach().clone(), trainer.losses.forward()
        weighting.apply(torch.tensor([weights] * 3, dtype=torch.float32), ALL, view)
        assert moved(before, trainer) == copies  # parity trains the copy that it shares with digit
        assert trainer.finite().all()
        assert trainer.weights[:, int(trainer.ledger.step[0]) - 1].tolist() == [weights] * 3
        assert torch.isfinite(trainer.losses.forward()).all()
        assert (trainer.losses.forward() != losses).any()
    assert trainer.replicas.buffers[ASSIGN][:, 0].tolist() == [[0, 0, 2, 3]] * 3
    assert merging.outcome(0)["assign"][0] == [0, 0, 2, 3]


def test_a_step_of_weights_on_merged_layers_descends_the_weighted_sum():
    trainer, merging = merged()
    weighting = TaskWeights(trainer, 1, TaskWeighing(trainer.recipe.num_tasks, action="weights"))
    view = begin(trainer, merging, weighting)
    weights = torch.tensor([[0.5, 2.0, 1.0, 0.0]] * 3)
    parameters, flat = [*trainer.replicas.parameters.values()], trainer.replicas.flat.clone()
    total = (trainer.losses.graph() * weights).sum()
    gradients = torch.cat([own.flatten(1) for own in torch.autograd.grad(total, parameters, retain_graph=True)], dim=1)
    weighting.apply(weights, ALL, view)
    torch.testing.assert_close(trainer.replicas.flat, flat - 0.1 * gradients)


def test_weights_of_samples_act_on_trainings_whose_layers_are_merged():
    trainer, merging = merged(by_samples=True)
    modes = {"action": "weights", "features": None, "sharpness": 10.0, "num_quantiles": 4}
    sampling = SampleWeights(trainer, 1, SampleWeighing(batch_size=16, num_tasks=4, **modes))
    view = begin(trainer, merging, sampling)
    seen = sampling.observe(["loss", "alignment", "mean"]).values
    assert all(values.shape == (3, 16, 4) and bool(torch.isfinite(values).all()) for values in seen.values())
    before, weights = trainer.replicas.parameters["stage0"].detach().clone(), torch.zeros(3, 16, 4)
    weights[:, :5, 1] = 1
    sampling.apply(weights.flatten(1), ALL, view)
    assert moved(before, trainer) == [True, False, False, False]
    assert trainer.finite().all()
    assert trainer.weights[:, int(trainer.ledger.step[0]) - 1].tolist() == [[0, pytest.approx(5 / 16), 0, 0]] * 3
    train(trainer, 3)
    assert torch.isfinite(trainer.losses.forward()).all()


def test_composed_decisions_are_kept_whole():
    trainer, merging = merged()
    weighting = TaskWeights(trainer, 2, TaskWeighing(trainer.recipe.num_tasks))
    view = begin(trainer, merging, weighting)
    twin = pickle.loads(pickle.dumps((trainer, merging, weighting)))
    state = trainer.clone()
    after = []
    for own, decision in ((trainer, weighting), (twin[0], twin[2]), (trainer, weighting)):
        decision.apply(torch.tensor([[0.5, -0.5, 1.0, 0.0]] * 3), ALL, view)
        after.append(own.clone())
        trainer.load(state)
    assert same(after[0], after[1])
    assert same(after[0], after[2])


def test_two_decisions_of_one_kind_do_not_share_a_trainer_by_accident():
    trainer, _ = merged()
    TaskWeights(trainer, 2, TaskWeighing(trainer.recipe.num_tasks))
    with pytest.raises(ValueError, match=r"`name` should be new.*TaskWeights\.last_weights"):
        TaskWeights(trainer, 2, TaskWeighing(trainer.recipe.num_tasks))


def test_layers_of_other_models_are_not_merged():
    trainer = make_trainer(env_id=LAYER_MERGING, tasks=TASKS)
    transfer = Transfer(trainer, kind="average", steps=1, average_moments=False)
    with pytest.raises(TypeError, match="BranchedModel"):
        transfer.merge(torch.zeros(3, 1, 4, dtype=torch.int64))


class Stepped(TaskWeights):
    """Task weights whose step is measured every four steps: a number and a table for each row."""

    def probes(self):
        return [Probe(("steps", "tables"), self.stepped, periodic=("steps", "tables")), *super().probes()]

    def stepped(self, names):
        step = self.trainer.ledger.step.clone()
        values = {"steps": step, "tables": step[:, None, None].expand(-1, 2, 2)}
        return Reading({name: values[name] for name in names})


def test_periodic_measurements_of_any_shape_are_kept_by_the_rows_that_are_not_due():
    trainer = make_trainer(ids=[3, 4, 5])
    decision = Stepped(trainer, 2, TaskWeighing(trainer.recipe.num_tasks))
    meter = Meter(decision, {"steps", "tables"}, reward_every=4)
    view = meter.first(ALL)
    actions = torch.zeros(3, decision.trainer.recipe.num_tasks)
    for active in ([True, True, True], [True, False, True]):
        rows = torch.tensor(active)
        decision.apply(actions, rows, view)
        view = meter.next(view, rows)
    assert view["steps"].tolist() == [4, 0, 4]
    assert view["tables"].flatten(1).tolist() == [[4] * 4, [0] * 4, [4] * 4]
