import copy

import numpy as np
import pytest
import torch
from rollouts import make_trainer, rows_of, same, train

from mtl_gym.training.measurements import last_batch
from mtl_gym.training.recipe import Recipe


def test_batches_are_the_instances_own_and_one_more_than_the_steps():
    trainer = make_trainer(ids=[4, 9])
    assert trainer.losses.drawn.batches.order.shape == (2, 9, 16)
    for row, instance in enumerate(trainer.ledger.instances):
        assert np.array_equal(trainer.losses.drawn.batches.order[row], instance.order(16, 9))


def test_rows_at_different_steps_see_their_own_batches():
    trainer = train(make_trainer(ids=[4, 9]), 3, active=[True, False])
    samples, order = trainer.losses.batch().samples, trainer.losses.drawn.batches.order
    assert samples.tolist() == [order[0, 3].tolist(), order[1, 0].tolist()]


@pytest.mark.parametrize("by_samples", [False, True])
def test_a_batch_that_a_decision_writes_is_the_one_that_is_trained_on(by_samples):
    options = {"by_samples": by_samples}
    written, own = train(make_trainer(options=options), 1), train(make_trainer(options=options), 1)
    chosen = torch.arange(100, 116, dtype=torch.int32)
    written.losses.drawn.batches.order[1, 1] = chosen
    assert written.losses.batch().samples[1].tolist() == chosen.tolist()
    upcoming = written.losses.forward()
    train(written, 1)
    assert same(written.losses.history[:, 1], upcoming)
    train(own, 1)
    assert same(rows_of(written.clone(), [0, 2]), rows_of(own.clone(), [0, 2]))
    assert not same(written.replicas.flat[1], own.replicas.flat[1])


def test_training_on_a_written_batch_is_training_on_those_samples():
    trainer, other = make_trainer(ids=[4]), make_trainer(ids=[9])
    other.replicas.flat.copy_(trainer.replicas.flat)
    for step in range(8):  # chosen while training goes on, as a curriculum is
        trainer.losses.drawn.batches.order[0, step] = other.losses.drawn.batches.order[0, step]
        train(trainer, 1)
    train(other, 8)
    assert same(trainer.replicas.flat, other.replicas.flat)
    assert same(last_batch(trainer), last_batch(other))


def test_a_batch_written_after_its_losses_were_seen_is_trained_on_once_they_are_dropped():
    trainer, fresh = make_trainer(ids=[4]), make_trainer(ids=[4])
    for own in (trainer, fresh):
        if own is trainer:
            seen = own.losses.forward()
        own.losses.drawn.batches.order[0, 0] = torch.arange(16)
        own.losses.forget()
    assert not same(seen, trainer.losses.forward())
    assert same(train(trainer, 2).clone(), train(fresh, 2).clone())


def test_written_batches_are_kept_and_end_with_the_training():
    trainer = make_trainer(ids=[4, 9])
    trainer.losses.drawn.batches.order[:, 2] = torch.arange(16)
    other = make_trainer(ids=[4, 9])
    other.load(trainer.clone())
    assert same(train(copy.deepcopy(trainer), 4).clone(), train(other, 4).clone())
    trainer.begin([1], [9])
    assert same(trainer.losses.drawn.batches.order[1], make_trainer(ids=[4, 9]).losses.drawn.batches.order[1])
    assert isinstance(trainer.recipe, Recipe)


@pytest.mark.parametrize("by_samples", [False, True])
def test_rows_of_one_instance_with_batches_of_their_own_are_trained_on_their_own(by_samples):
    written, alone = (make_trainer(ids=ids, options={"by_samples": by_samples}) for ids in ([4, 4], [4]))
    for trainer in (written, alone):
        trainer.losses.drawn.batches.order[-1, 0] = trainer.losses.drawn.batches.order[-1, 7]
        trainer.restructured()
        train(trainer, 2)
    assert same(rows_of(written.clone(), [1]), rows_of(alone.clone(), [0]))
    assert not same(written.replicas.flat[0], written.replicas.flat[1])
