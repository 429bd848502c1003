"""A problem from arrays, where 60 % of a task's labels are missing: compare policies, then train with the best.

``python examples/sparse_labels.py``. A label that is NaN takes no part in losses and metrics. The other tasks, which have all of
their labels, help the network to learn the one that has few.
"""

import numpy as np
from sklearn.datasets import load_digits

import mtl_gym


def make():
    """The problem; on the command line: ``mtl-gym check examples/sparse_labels.py:make``."""
    images, digits = load_digits(return_X_y=True)
    few = digits.astype(float)
    few[np.random.default_rng(0).random(len(few)) < 0.6] = np.nan
    targets = {"digit": few, "even": digits % 2 == 0, "loops": np.isin(digits, [0, 6, 8, 9])}
    return mtl_gym.Problem.from_arrays(images, targets, name="sparse_digits")


def main(policies="ew,si,igb,uw", instances=6, **arguments):
    """Compares, and returns the results of all instances as a frame and a training with the best policy."""
    problem = make()
    labels = problem.splits["train"].targets  # (n, K)
    missing = {task.name: f"{own:.0%}" for task, own in zip(problem.tasks, labels.isnan().float().mean(0), strict=True)}
    frame = mtl_gym.compare(policies, problem=problem, instances=instances, seed=0, **arguments)
    gains = frame.pivot_table(index="policy", columns="task", values="gain")
    best = frame.groupby("policy")["delta_m"].mean().idxmax()
    done = mtl_gym.fit(problem, best, seed=0, **arguments)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in done.metrics.items())
    print(f"labels missing: {missing}; gain over single-task learning in %:\n{gains.round(2).to_string()}")
    print(f"trained with {best}: {scores} on test")
    return frame, done


if __name__ == "__main__":
    main()
