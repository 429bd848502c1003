"""What merging layers achieves: planted pairs of tasks that should be found, and scores as a function of parameters.

    python -m benchmarks.layer_merging            all (an hour on two cores; rerun to resume)
    python -m benchmarks.layer_merging planted    one of the studies: planted, digits_4, digits, multimnist, census

*planted*: two digit classifications that differ only in the names of the classes, and two regressions that differ only by a
rotation of the target. Measures the similarities of single-task networks, and which tasks share the last stage at the end
(adjusted Rand index against the pairs), for both rules of MTSL with a scan of thresholds, and at the paper's threshold with other
settings that might matter: factors of the alignment term, intervals between decisions, and separate initial weights for every
task's copies. Threshold and factor are chosen by the return on the *reward* split of training instances. The other studies
(``digits_4`` is the agent's training setting, on new instances): score on *test*, score on corrupted inputs, and parameters.
Means with 95 % intervals; paired differences. Writes ``benchmarks/results/layer_merging.json`` and the figure
``docs/layer_merging.svg``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score

from benchmarks.measuring import ROOT, Run, command_line
from mtl_gym.decisions.partitions import RULES
from mtl_gym.environments import LAYER_MERGING
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.statistics import student_interval
from mtl_gym.evaluation.styles import SETTINGS, styles
from mtl_gym.models.branched import BranchedModel
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem, Split, Task
from mtl_gym.problems.instances import TRAINING_IDS
from mtl_gym.problems.rows import Defaults

PICTURE = ROOT / "docs" / "layer_merging.svg"
PAIRS = [0, 0, 1, 1]
INSTANCES = 20
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
THRESHOLD = "ppo:action=threshold"
ALIGNMENTS = (0.0, 0.02, 0.05, 0.1, 0.2)  # the last is the paper's
INTERVALS = (10, 20, 60)  # steps between decisions; the second is the environment's
EARLY = {"train_steps": 20, "steps_per_action": 10}  # what the first decision observes
POLICIES = (
    *("single-task", "shared", "branch", "mtsl", "mtsl:threshold=.9", "mtsl:threshold=.95", "conflict", "random-merge"),
    *("ppo", THRESHOLD),
)
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits_4": {"problem": "digits_scales", "policies": POLICIES, "instances": 30, "num_tasks": 4, "distribution": "varied"},
    "digits": {
        "problem": "digits_scales",
        "policies": (*POLICIES[:3], "branch:stage=2", *POLICIES[3:]),
        "instances": 30,
        "hidden_sizes": [64, 64, 64],
    },
    "multimnist": {
        "policies": ("single-task", "shared", "branch", "branch:stage=2", "mtsl", "mtsl:threshold=.9", "ppo", THRESHOLD),
        "instances": 10,
    },
    "census": {"policies": POLICIES, "instances": 20},
}


def planted(smoke: bool) -> Problem:
    """Digits with two pairs of related tasks; trainings are small in smoke mode."""
    digits = load_problem("digits_scales")
    columns = dict(zip([task.name for task in digits.tasks], digits.target_slices, strict=True))
    names = torch.from_numpy(np.random.default_rng(0).permutation(10)).float()

    def labelled(split: Split) -> Split:
        digit, centre = split.targets[:, columns["digit"]], split.targets[:, columns["centre"]]
        rotated = torch.stack([centre[:, 0] + centre[:, 1], centre[:, 0] - centre[:, 1]], dim=1) / 2**0.5
        return Split(split.inputs, torch.cat([digit, names[digit.long()], centre, rotated], dim=1))

    tasks = [Task(name, "cross_entropy", ("accuracy",), 10) for name in ("digit", "renamed")]
    tasks += [Task(name, "mse", ("nrmse",), 2) for name in ("centre", "rotated")]
    splits = {name: labelled(split) for name, split in digits.splits.items()}
    size = {"hidden_sizes": (8, 8, 8), "train_steps": 40} if smoke else {"hidden_sizes": (64, 64, 64)}
    defaults = Defaults(lr=2e-3, **size)  # type: ignore[arg-type]
    return Problem("planted_pairs", tuple(tasks), splits, network="mlp", defaults=defaults)


def study_planted(chosen: Run) -> dict[str, Any]:
    """Similarities within and across the pairs, and the pairs that MTSL ends up with."""
    problem, count = planted(chosen.smoke), chosen.size(INSTANCES, 2)
    thresholds, factors, lengths = THRESHOLDS, ALIGNMENTS, INTERVALS
    if chosen.smoke:
        thresholds, factors, lengths = (0.8,), (0.2,), (10,)
    rules = {
        rule: {f"{threshold}": found(problem, count, f"mtsl:threshold={threshold}:rule={rule}") for threshold in thresholds}
        for rule in RULES
    }
    scan = rules["paper"]
    alignments = {f"{factor}": found(problem, count, f"mtsl:alignment={factor}") for factor in factors}
    intervals = {f"{steps}": found(problem, count, "mtsl", steps_per_action=steps) for steps in lengths}
    with own_weights():
        own = {f"{factor}": found(problem, count, f"mtsl:alignment={factor}") for factor in factors}
        apart = similarities(problem, count)
    aligned = EARLY | {"alignment": ALIGNMENTS[-1]}
    return {
        "instances": count,
        **similarities(problem, count),
        "after the first decision's steps": similarities(problem, count, **EARLY),
        "after the first decision's steps, with the alignment term": similarities(problem, count, **aligned),
        "scan": scan,
        "scan by the rule of the code": rules["code"],
        "chosen": best(scan),
        "rand index of the chosen": scan[best(scan)]["rand index"],
        "rand index at .8": scan["0.8"]["rand index"],
        "at .8, by factor of the alignment": alignments,
        "chosen factor": best(alignments),
        "at .8, by steps between decisions": intervals,
        "at .8, initial weights of their own, by factor of the alignment": own,
        "initial weights of their own": apart,
    }


def found(problem: Problem, count: int, name: str, **arguments: Any) -> dict[str, Any]:
    """The structures a policy ends up with on held-out instances, and its return on *reward* on as many training instances."""
    ends, training = rollouts(name, problem, range(count), **arguments), range(TRAINING_IDS[0], TRAINING_IDS[0] + count)
    returns = [result.episode_return for result in rollouts(name, problem, training, reward="gain_change", **arguments)]
    return {
        "rand index": interval([rand_index(result) for result in ends]),
        "parameters": interval([result.outcome["parameter_fraction"] for result in ends]),
        "return on reward, training instances": interval(returns),
    }


def best(rows: dict[str, Any]) -> str:
    """The row with the highest return."""
    return max(rows, key=lambda name: float(rows[name]["return on reward, training instances"]["mean"]))


def similarities(problem: Problem, count: int, **arguments: Any) -> dict[str, list[float]]:
    """Mean CKA at every stage of single-task networks, within pairs and across them."""
    results = rollouts("single-task", problem, range(count), **arguments)
    similar = np.array([result.outcome["cka"] for result in results])  # (N, S, K, K)
    places = {"cka within": ([0, 2], [1, 3]), "cka across": ([0, 0, 1, 1], [2, 3, 2, 3])}
    return {name: similar[..., one, other].mean((0, 2)).round(3).tolist() for name, (one, other) in places.items()}


@contextlib.contextmanager
def own_weights() -> Iterator[None]:
    """Gives every task's copies separate initial weights, instead of the same ones."""
    same = BranchedModel.init

    def init(
        model: BranchedModel, rng: np.random.Generator, tasks: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        ends = list(accumulate(model.copy_sizes))
        draws = [np.split(model.model.init(rng, tasks)[0], ends) for _ in range(model.num_tasks)]
        stages = [draw[stage] for stage in range(model.num_stages) for draw in draws]
        return np.concatenate([*stages, draws[0][-1]]), same(model, rng, tasks)[1]

    BranchedModel.init = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        BranchedModel.init = same  # type: ignore[method-assign]


def rollouts(name: str, problem: Problem, ids: Sequence[int], **arguments: Any) -> list[Result]:
    """Episodes of a policy; without references, since gains are not needed."""
    policy = make_policy(name)
    unknown = {id: {f"{task.name}/{metric}": 1.0 for task in problem.tasks for metric in task.metrics} for id in ids}
    return rollout(name, policy, LAYER_MERGING, ids, arguments={"problem": problem, **arguments}, references=unknown)


def rand_index(result: Result) -> float:
    """Adjusted Rand index of which tasks share the last stage, against the pairs."""
    return float(adjusted_rand_score(PAIRS, result.outcome["assign"][-1]))


def interval(values: npt.ArrayLike) -> dict[str, float]:
    """Mean with its 95 % interval (Student)."""
    own = np.asarray(values, dtype=float)
    low, high = student_interval(own)
    return {
        name: round(float(value), 3) for name, value in {"mean": own.mean(), "low": low, "high": high}.items() if value is not None
    }


def study(name: str, chosen: Run) -> dict[str, Any]:
    """Scores and parameters of every policy on a problem."""
    row = dict(PROBLEMS[name])
    policies, instances = row.pop("policies"), row.pop("instances")
    if chosen.smoke:
        policies, instances, row = ("single-task", "mtsl", "ppo"), 2, {**row, "train_steps": 40}
    arguments = {"problem": name, "reward": "gain_change", "instances": instances, "num_envs": 10, **row}
    results = run(plan(list(policies), LAYER_MERGING, **arguments), out=chosen.kept)
    own = {policy: [result for result in results if result.policy == policy] for policy in policies}
    delta = {policy: np.array([result.delta_m for result in rows]) for policy, rows in own.items()}
    returns = {policy: np.array([result.episode_return for result in rows]) for policy, rows in own.items()}
    return {
        "instances": instances,
        "agent": make_policy("ppo", LAYER_MERGING).spec["agent"],  # type: ignore[attr-defined]
        "policies": {
            policy: {
                "delta_m": interval(delta[policy]),
                "corrupted": interval([result.outcome["corrupted"] for result in rows]),
                "parameters": interval([result.outcome["parameter_fraction"] for result in rows]),
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


def main(words: Sequence[str] | None = None) -> None:
    """Runs the studies, adds them to the results, and draws the fronts."""
    chosen: Run = command_line(words)
    known = chosen.known()
    for name in chosen.chosen(("planted", *PROBLEMS), smoke=2):
        known[name] = study_planted(chosen) if name == "planted" else study(name, chosen)
        chosen.write({own: known[own] for own in ("planted", *PROBLEMS) if own in known})
        print(name, json.dumps(known[name]), flush=True)
    draw({name: known[name] for name in PROBLEMS if name in known}, chosen.beside(PICTURE))


def draw(studies: dict[str, Any], path: Path | None) -> None:
    """Plots scores against parameters: clean above, corrupted below, a column for each problem."""
    if not studies or path is None:
        return
    with matplotlib.rc_context(SETTINGS | {"svg.fonttype": "path"}):
        figure = Figure(figsize=(3.6 * len(studies) + 0.6, 6.0), layout="constrained")
        panels = figure.subplots(2, len(studies), sharex=True, squeeze=False)
        looks = styles(policy for row in studies.values() for policy in row["policies"])
        for column, (problem, row) in enumerate(studies.items()):
            for policy, own in row["policies"].items():
                look = looks[policy] | {"linestyle": ""}
                for axes, score in zip(panels[:, column], ("delta_m", "corrupted"), strict=True):
                    axes.plot(own["parameters"]["mean"], own[score]["mean"], label=policy, **look)
                    axes.vlines(own["parameters"]["mean"], own[score]["low"], own[score]["high"], color=look["color"], linewidth=1)
            panels[0, column].set_title(problem)
            panels[1, column].set_xlabel("fraction of the parameters of single-task networks")
        panels[0, 0].set_ylabel("delta_m on test, %")
        panels[1, 0].set_ylabel("delta_m on corrupted inputs, %")
        labels = {label: line for axes in panels[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), ncols=5, loc="outside upper left", frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
