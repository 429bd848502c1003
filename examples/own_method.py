"""A method of your own in three forms, compared with methods of the literature: ``python examples/own_method.py``.

A function of the losses; a method with a memory, made anew for each training; a class that says what it reads. Each of them can
also be handed to ``mtl_gym.LossBalancer`` in your own loop, or named on the command line:
``mtl-gym compare --policies ew,examples/own_method.py:Slow --problem digits``.
"""

import numpy as np

import mtl_gym


def roots(losses):
    """Losses (K,) in, weights (K,) out: tasks with a large loss count less."""
    return 1 / np.sqrt(losses)


def moving_average():
    """Makes a method with a memory: each loss is divided by its own moving average."""
    average = None

    def weights(losses):
        nonlocal average
        average = losses if average is None else 0.9 * average + 0.1 * losses
        return 1 / average

    return weights


class Slow:
    """Tasks whose held-out loss falls slowly count more; decides every 10 steps and says what it reads."""

    requires = mtl_gym.Requirements(env="mtl_gym/LossWeighting-v0", observe=("meta_slope",), action="residual", steps_per_action=10)

    def __init__(self, strength=5.0):
        self.strength = strength
        self.spec = {"method": "slow", "strength": strength}  # identifies its results, so that they can be reused

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """Slopes (N, K) of the logarithms of held-out losses in, actions (N, K) between -1 and 1 out."""
        return np.clip(self.strength * observation["meta_slope"], -1, 1), state


def main(instances=6, **arguments):
    """Compares, and returns the results of all instances as a frame."""
    policies = {
        "ew": "ew",
        "si": "si",
        "roots": mtl_gym.policy(roots),
        "average": mtl_gym.policy(moving_average, per_training=True),
        "slow": Slow(),
    }
    frame = mtl_gym.compare(policies, problem="digits", instances=instances, seed=0, **arguments)
    print(mtl_gym.leaderboard(frame)[["delta_m", "difference", "verdict"]].round(1).to_string())
    return frame


if __name__ == "__main__":
    main()
