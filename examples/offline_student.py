"""Plays a policy that was trained offline elsewhere and comes back as arrays, and compares it with its teacher.

python examples/offline_student.py student.npz        after offline_d3rlpy.py
mtl-gym compare --policies ppo,examples/offline_student.py:Student:path=student.npz --problem digits --out compared
"""

import json
import sys

import numpy as np

import mtl_gym


class Student:
    """A network of linear layers with ReLU between them and tanh at the end.

    Args:
        path: The arrays: ``weight_0``, ``bias_0`` and so on, and the environment's id and the arguments that it requires.
    """

    def __init__(self, path):
        with np.load(path) as file:  # which refuses pickles
            count = sum(name.startswith("weight_") for name in file)
            self.layers = [(file[f"weight_{place}"].T, file[f"bias_{place}"]) for place in range(count)]
            env, required = file["env"].item(), json.loads(file["requires"].item())
        own = {name: required.pop(name) for name in ("action", "steps_per_action", "decisions") if name in required}
        self.requires = mtl_gym.Requirements(env=env, observe=tuple(required.pop("observe")), env_kwargs=required, **own)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """Actions (N, A) from observations (N, length), in the order of a flat data set: that of their names."""
        values = np.concatenate([observation[name] for name in sorted(observation)], axis=-1)
        *hidden, (weight, bias) = self.layers
        for inner, offset in hidden:
            values = np.maximum(values @ inner + offset, 0)
        return np.tanh(values @ weight + bias), state


def main(path, teacher="ppo", **arguments):
    """Compares the policy with its teacher on instances that the data set does not hold."""
    policies = {"teacher": teacher, "student": Student(path)}
    frame = mtl_gym.compare(policies, policies["student"].requires.env, **{"problem": "digits", "instances": 20, **arguments})
    print(mtl_gym.leaderboard(frame))
    return frame


if __name__ == "__main__":
    main(*sys.argv[1:])
