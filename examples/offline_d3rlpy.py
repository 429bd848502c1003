"""Trains a policy with d3rlpy on a flat data set that ``mtl-gym record`` wrote, and hands it back as arrays.

d3rlpy needs an older Gymnasium than mtl_gym does, so this script runs in an environment of its own, and does not import mtl_gym:

    pip install d3rlpy "minari[hdf5]" pillow
    python offline_d3rlpy.py digits/ppo-v0 student.npz

The algorithm is behaviour cloning; any other of d3rlpy's with a deterministic policy, such as TD3+BC, takes its place.
``offline_student.py`` plays what this writes.
"""

import json
import sys

import d3rlpy
import minari
import numpy as np
from torch import nn


def transitions(dataset):
    """The episodes of a data set in d3rlpy's form, which has no last observation, with actions in [-1, 1]."""
    if not isinstance(dataset.observation_space.shape, tuple):
        raise ValueError("d3rlpy needs one Box of observations: record with --flat.")
    if not (dataset.action_space.low.min() >= -1 and dataset.action_space.high.max() <= 1):
        raise ValueError("The networks answer in [-1, 1]: record a policy with such actions.")
    parts = [
        (own.observations[:-1], own.actions, own.rewards.astype(np.float32), own.terminations, own.truncations) for own in dataset
    ]
    return d3rlpy.dataset.MDPDataset(*(np.concatenate(own) for own in zip(*parts, strict=True)))


def arrays(policy, metadata):
    """The layers of a policy, and what it requires of its environment."""
    layers = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    found = {"env": np.array(metadata["env"]), "requires": np.array(json.dumps(metadata["requires"]))}
    for place, layer in enumerate(layers):
        found |= {f"weight_{place}": layer.weight.detach().numpy(), f"bias_{place}": layer.bias.detach().numpy()}
    return found


def main(dataset_id, path, steps=4000, seed=0):
    """Trains on a data set and writes the policy."""
    d3rlpy.seed(seed)
    dataset = minari.load_dataset(dataset_id)
    model = d3rlpy.algos.BCConfig(batch_size=256).create(device="cpu")
    quiet = d3rlpy.logging.NoopAdapterFactory()
    model.fit(transitions(dataset), n_steps=steps, n_steps_per_epoch=steps, logger_adapter=quiet, show_progress=False)
    np.savez(path, **arrays(model.impl.policy, dataset.storage.metadata["mtl_gym"]))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
