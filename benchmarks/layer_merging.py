"""What merging layers brings: planted pairs of tasks that should be found, and scores against parameters.

    python benchmarks/layer_merging.py            all (an hour on two cores; what is finished is found again)
    python benchmarks/layer_merging.py planted    one of the studies: planted, digits_4, digits, multimnist, census

*planted*: two classifications of digits that differ only in the names of the classes, and two regressions that differ only by a
rotation of the target; similarities of separate networks, and who shares the last stage at the end (adjusted Rand index against
the pairs), for MTSL with a scan of thresholds, and at the paper's threshold with what might move it: other factors of the
alignment term, other intervals between decisions, and initial weights of their own for every task's copies. Threshold and factor
are chosen by the return on the *reward* split of training instances. The others (``digits_4`` is what the agent was trained on,
other instances): score on *test*, score on corrupted inputs, and parameters. Means with 95 % intervals; paired differences. Writes
``benchmarks/results/layer_merging.json`` and the picture ``docs/layer_merging.svg``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib
import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score

from mtl_gym.evaluation.comparison import plan, run
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.styles import POLICY_COLOURS, SETTINGS
from mtl_gym.policies import make_policy
from mtl_gym.problems import LAYER_MERGING, Defaults, load_problem
from mtl_gym.problems.base import Problem, Split, Task
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.training.branches import BranchedNetwork

OUT = Path(__file__).parent / "results" / "layer_merging.json"
PICTURE = Path(__file__).parents[1] / "docs" / "layer_merging.svg"
KEPT = Path(__file__).parents[1] / "runs" / "layer_merging"
PAIRS = [0, 0, 1, 1]
HELD_OUT = range(20)
TRAINING = range(TRAINING_IDS[0], TRAINING_IDS[0] + 20)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
THRESHOLD = "ppo:action=threshold"
ALIGNMENTS = (0.0, 0.02, 0.05, 0.1, 0.2)  # the last is the paper's
INTERVALS = (10, 20, 60)  # steps between decisions; the second is the environment's
EARLY = {"train_steps": 20, "steps_per_action": 10}  # what the first decision sees
POLICIES = (
    *("single-task", "shared", "branch", "mtsl", "mtsl:threshold=.9", "mtsl:threshold=.95", "conflict", "random-merge"),
    *("ppo", THRESHOLD),
)
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits_4": {"problem": "digits", "policies": POLICIES, "instances": 30, "num_tasks": 4, "distribution": "varied"},
    "digits": {"policies": (*POLICIES[:3], "branch:stage=2", *POLICIES[3:]), "instances": 30, "hidden_sizes": [64, 64, 64]},
    "multimnist": {
        "policies": ("single-task", "shared", "branch", "branch:stage=2", "mtsl", "mtsl:threshold=.9", "ppo", THRESHOLD),
        "instances": 10,
    },
    "census": {"policies": POLICIES, "instances": 20},
}


def planted() -> Problem:
    """Digits with two pairs of related tasks."""
    digits = load_problem("digits")
    columns = dict(zip([task.name for task in digits.tasks], digits.target_slices, strict=True))
    names = torch.from_numpy(np.random.default_rng(0).permutation(10)).float()

    def labelled(split: Split) -> Split:
        digit, centre = split.targets[:, columns["digit"]], split.targets[:, columns["centre"]]
        rotated = torch.stack([centre[:, 0] + centre[:, 1], centre[:, 0] - centre[:, 1]], dim=1) / 2**0.5
        return Split(split.inputs, torch.cat([digit, names[digit.long()], centre, rotated], dim=1))

    tasks = [Task(name, "cross_entropy", ("accuracy",), 10) for name in ("digit", "renamed")]
    tasks += [Task(name, "mse", ("nrmse",), 2) for name in ("centre", "rotated")]
    splits = {name: labelled(split) for name, split in digits.splits.items()}
    return Problem("planted_pairs", tuple(tasks), splits, network="mlp", defaults=Defaults(lr=2e-3, hidden_sizes=(64, 64, 64)))


def study_planted() -> dict[str, Any]:
    """Similarities within and across the pairs, and the pairs that MTSL ends with."""
    problem = planted()
    scan = {f"{threshold}": found(problem, f"mtsl:threshold={threshold}") for threshold in THRESHOLDS}
    alignments = {f"{factor}": found(problem, f"mtsl:alignment={factor}") for factor in ALIGNMENTS}
    intervals = {f"{steps}": found(problem, "mtsl", steps_per_action=steps) for steps in INTERVALS}
    with own_weights():
        own = {f"{factor}": found(problem, f"mtsl:alignment={factor}") for factor in ALIGNMENTS}
        apart = similarities(problem)
    return {
        "instances": len(HELD_OUT),
        **similarities(problem),
        "after the first decision's steps": similarities(problem, **EARLY),
        "after the first decision's steps, with the alignment term": similarities(problem, alignment=ALIGNMENTS[-1], **EARLY),
        "scan": scan,
        "chosen": best(scan),
        "rand index of the chosen": scan[best(scan)]["rand index"],
        "rand index at .8": scan["0.8"]["rand index"],
        "at .8, by factor of the alignment": alignments,
        "chosen factor": best(alignments),
        "at .8, by steps between decisions": intervals,
        "at .8, initial weights of their own, by factor of the alignment": own,
        "initial weights of their own": apart,
    }


def found(problem: Problem, name: str, **arguments: Any) -> dict[str, Any]:
    """What a policy ends with on held-out instances, and its return on *reward* on training instances."""
    ends = rollouts(name, problem, HELD_OUT, **arguments)
    returns = [result.episode_return for result in rollouts(name, problem, TRAINING, reward="gain_change", **arguments)]
    return {
        "rand index": interval([rand_index(result) for result in ends]),
        "parameters": interval([result.structure["parameter_fraction"] for result in ends]),
        "return on reward, training instances": interval(returns),
    }


def best(rows: dict[str, Any]) -> str:
    """The row with the highest return."""
    return max(rows, key=lambda name: float(rows[name]["return on reward, training instances"]["mean"]))


def similarities(problem: Problem, **arguments: Any) -> dict[str, list[float]]:
    """Mean CKA at every stage of separate networks, of the pairs and of tasks of different pairs."""
    similar = np.array(
        [result.structure["cka"] for result in rollouts("single-task", problem, HELD_OUT, **arguments)]
    )  # (N, S, K, K)
    places = {"cka within": ([0, 2], [1, 3]), "cka across": ([0, 0, 1, 1], [2, 3, 2, 3])}
    return {name: similar[..., one, other].mean((0, 2)).round(3).tolist() for name, (one, other) in places.items()}


@contextlib.contextmanager
def own_weights() -> Iterator[None]:
    """Every task's copies begin with weights of their own, instead of the same ones."""
    same = BranchedNetwork.initial

    def initial(network: BranchedNetwork, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        draws = [np.split(network.network.initial(rng), list(accumulate(network.sizes))) for _ in range(network.num_tasks)]
        stages = [draw[stage] for stage in range(network.num_stages) for draw in draws]
        return np.concatenate([*stages, draws[0][-1]])

    BranchedNetwork.initial = initial  # type: ignore[method-assign]
    try:
        yield
    finally:
        BranchedNetwork.initial = same  # type: ignore[method-assign]


def rollouts(name: str, problem: Problem, ids: Sequence[int], **arguments: Any) -> list[Result]:
    """Episodes of a policy; without references, since gains are not what is looked at."""
    policy = make_policy(name)
    unknown = {id: {f"{task.name}/{metric}": 1.0 for task in problem.tasks for metric in task.metrics} for id in ids}
    return rollout(name, policy, LAYER_MERGING, ids, arguments={"problem": problem, **arguments}, references=unknown)


def rand_index(result: Result) -> float:
    """Of who shares the last stage, against the pairs."""
    return float(adjusted_rand_score(PAIRS, result.structure["assign"][-1]))


def interval(values: npt.ArrayLike) -> dict[str, float]:
    """Mean with its 95 % interval (Student)."""
    own = np.asarray(values, dtype=float)
    half = scipy.stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
    row = {"mean": own.mean(), "low": own.mean() - half, "high": own.mean() + half}
    return {name: round(float(value), 3) for name, value in row.items()}


def study(name: str) -> dict[str, Any]:
    """Scores and parameters of every policy on a problem."""
    row = dict(PROBLEMS[name])
    policies, instances = row.pop("policies"), row.pop("instances")
    arguments = {"problem": name, "reward": "gain_change", "instances": instances, "num_envs": 10, **row}
    results = run(plan(list(policies), LAYER_MERGING, **arguments), out=KEPT)
    own = {policy: [result for result in results if result.policy == policy] for policy in policies}
    delta = {policy: np.array([result.delta_m for result in rows]) for policy, rows in own.items()}
    returns = {policy: np.array([result.episode_return for result in rows]) for policy, rows in own.items()}
    return {
        "instances": instances,
        "agent": make_policy("ppo", LAYER_MERGING).spec["agent"],  # type: ignore[attr-defined]
        "policies": {
            policy: {
                "delta_m": interval(delta[policy]),
                "corrupted": interval([result.structure["corrupted"] for result in rows]),
                "parameters": interval([result.structure["parameter_fraction"] for result in rows]),
                "return": interval(returns[policy]),
                "ppo minus it": {
                    "delta_m": interval(delta["ppo"] - delta[policy]),
                    "return": interval(returns["ppo"] - returns[policy]),
                }
                if policy != "ppo"
                else None,
            }
            for policy, rows in own.items()
        },
    }


def main(names: Sequence[str]) -> None:
    """Runs the studies, adds them to the results, and draws the fronts."""
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    for name in names or ("planted", *PROBLEMS):
        known[name] = study_planted() if name == "planted" else study(name)
        OUT.write_text(json.dumps({own: known[own] for own in ("planted", *PROBLEMS) if own in known}, indent=1) + "\n")
        print(name, json.dumps(known[name]), flush=True)
    draw({name: known[name] for name in PROBLEMS if name in known})


def draw(studies: dict[str, Any]) -> None:
    """Scores against parameters, clean above and corrupted below, a column for each problem."""
    if not studies:
        return
    with matplotlib.rc_context(SETTINGS | {"svg.fonttype": "path"}):
        figure = Figure(figsize=(3.6 * len(studies) + 0.6, 6.0), layout="constrained")
        panels = figure.subplots(2, len(studies), sharex=True, squeeze=False)
        names = list(dict.fromkeys(policy for row in studies.values() for policy in row["policies"]))
        for column, (problem, row) in enumerate(studies.items()):
            for policy, own in row["policies"].items():
                place = names.index(policy)
                look = {"color": POLICY_COLOURS[place % len(POLICY_COLOURS)], "marker": "os^D"[place // len(POLICY_COLOURS)]}
                for axes, score in zip(panels[:, column], ("delta_m", "corrupted"), strict=True):
                    axes.plot(own["parameters"]["mean"], own[score]["mean"], linestyle="", label=policy, **look)
                    axes.vlines(own["parameters"]["mean"], own[score]["low"], own[score]["high"], color=look["color"], linewidth=1)
            panels[0, column].set_title(problem)
            panels[1, column].set_xlabel("parameters, share of separate networks'")
        panels[0, 0].set_ylabel("delta_m on test, %")
        panels[1, 0].set_ylabel("delta_m on corrupted inputs, %")
        labels = {label: line for axes in panels[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), ncols=5, loc="outside upper left", frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
