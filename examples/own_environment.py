"""An environment of your own in one file: each decision says which task is trained next. ``python examples/own_environment.py``.

A ``TrainingDecision`` (what an action does) and an ``EnvironmentSpec`` (what else the environment is made of) are enough: problems,
observations, rewards, the vector form and the comparison come with them. The classes register themselves when they are defined. A
package also names its environment in the entry point ``mtl_gym.environments``, so that the command line finds it.
"""

import numpy as np
import torch
from gymnasium.spaces import Discrete

import mtl_gym

ID = "acme/NextTask-v0"


class NextTask(mtl_gym.TrainingDecision):
    """Trains one task for some steps."""

    def __init__(self, trainer, steps):
        super().__init__(trainer, steps)
        self.num_tasks = trainer.recipe.num_tasks
        self.space = Discrete(self.num_tasks)
        self.counts = trainer.state.add("NextTask.counts", (self.num_tasks,))  # (N, K), saved and restored with the training

    def apply(self, actions, active, view):
        """Trains the chosen tasks (N,) of the active rows."""
        weights = torch.nn.functional.one_hot(actions.long(), self.num_tasks).float()
        self.counts += weights * active[:, None]
        self.last_weights.copy_(torch.where(active[:, None], weights, self.last_weights))
        for _ in range(self.steps):
            self.trainer.update(weights, active)

    def outcome(self, row):
        """How often the most frequent task was chosen."""
        return {"most_frequent": float(self.counts[row].max() / self.counts[row].sum())}


def decide(arguments, num_envs):
    """Makes the decision, with N trainings to act on."""
    return NextTask(mtl_gym.Trainer(arguments.problem, arguments.recipe, num_envs), arguments.steps_per_action)


class NextTaskVectorEnv(mtl_gym.MTLVectorEnv):
    """N trainings at once."""

    specification = mtl_gym.EnvironmentSpec(
        ID, decide, observe=("meta_log_loss", "last_weights"), columns=(mtl_gym.Column("most_frequent", "most frequent task"),)
    )


class NextTaskEnv(mtl_gym.MTLEnv):
    """Which task is trained next?"""

    vector_form = NextTaskVectorEnv


class InTurn:
    """Each task after the other."""

    requires = mtl_gym.Requirements(env=ID, observe=("last_weights",))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """The task after the last one (N,); the memory says whether there was one."""
        last = observation["last_weights"]  # (N, K)
        return (np.zeros(len(last), int) if state is None else (last.argmax(1) + 1) % last.shape[1]), True


class Hardest:
    """The task whose held-out loss is the largest, relative to that before the training."""

    requires = mtl_gym.Requirements(env=ID, observe=("meta_log_loss",))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        """Tasks (N,)."""
        losses = observation["meta_log_loss"]  # (N, K)
        first = losses if state is None else state
        return (losses - first).argmax(1), first


def main(instances=6, **arguments):
    """Compares, and returns the results of all instances as a frame."""
    policies = {"in turn": InTurn(), "hardest": Hardest()}
    frame = mtl_gym.compare(policies, ID, problem="digits", instances=instances, seed=0, **arguments)
    table = frame.groupby("policy")[["delta_m", "most_frequent"]].mean()
    print(table.round(2).to_string())
    return frame


if __name__ == "__main__":
    main()
