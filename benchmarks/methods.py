r"""Compares every method that weights tasks, on every problem, with constant weights that were searched for.

    python -m benchmarks.constant_weights      first: the constant weights
    python -m benchmarks.search                then: each method's learning rate and its own parameter
    python -m benchmarks.methods               all problems and cases (hours; rerun to resume: runs/methods keeps what is finished)
    python -m benchmarks.methods digits        one of them
    python -m benchmarks.methods digits --length 4 --out benchmarks/results/methods-4x.json
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.methods digits --instances 12 \
        --out benchmarks/results/methods-avx2.json

All policies play the same instances, each with the setting that the search found; a policy that was not searched for has its
defaults and the problem's learning rate; with ``--length 4`` trainings are four times as long, with the same settings. ``delta_m``
is over single-task learning of the same length at the rate that was found for it. Writes ``benchmarks/results/methods.json``
problem by problem, from which ``docs/generate.py`` makes the tables of ``docs/methods.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import mtl_gym
from benchmarks.constant_weights import VANISHING
from benchmarks.measuring import CASES, RESULTS, Run, case_arguments, cases, command_line, searched_in, still_valid
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.discrimination import discrimination
from mtl_gym.evaluation.frames import Attached
from mtl_gym.evaluation.kernels import described, running_kernels
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.evaluation.verdicts import verdicts_with
from mtl_gym.policies.finding import environment_of
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.scores import KINDS, WORST_DELTA_M, delta_m, delta_m_by_kind
from mtl_gym.training.checkpoints import CHECKPOINTS

SEARCHED, SETTINGS = RESULTS / "constant_weights.json", RESULTS / "search.json"
INSTANCES, NUM_ENVS = 30, 30
SMALLEST = 0.25
"""The smallest difference that matters, in points of ``delta_m``."""
SLOW = {"multimnist": 10, "stereo": 10}
CONSTANT, SINGLE_TASK = "constant", "single-task"
NAMED = ("ew", "si", "gls", "uw", "stch", "famo", "cagrad", "moco")
"""The methods that are compared where networks are convolutional."""
COMPOSITIONS = ("igb+cagrad", "igb+nash-mtl", "si+cagrad")
HEURISTICS = [name for name in BASELINES if environment_of(name) == LOSS_WEIGHTING and name != CONSTANT]


def policies(case: str, smoke: bool = False) -> dict[str, str]:
    """Labels to policies: all heuristics, some compositions, the pretrained agent, and the constant weights that the search found.

    In smoke mode one of each; where networks are convolutional, ``NAMED``. Constant weights that were found on another version of
    the problem, or with other arguments, are left out.
    """
    chosen = NAMED if case in SLOW else (*HEURISTICS, *COMPOSITIONS, "ppo")
    own = dict.fromkeys((HEURISTICS[0], COMPOSITIONS[0], "ppo") if smoke else chosen)
    best = _found(SEARCHED, case).get("best first")
    found = {CONSTANT: f"constant:w={','.join(map(str, best[0]['w']))}"} if best else {}
    return {**{name: name for name in own}, **found}


def _found(file: Path, case: str) -> dict[str, Any]:
    """What a search stored on a case, if it is still valid."""
    return still_valid(json.loads(file.read_text()).get(case, {}), case) if file.is_file() else {}


def study(case: str, run: Run, length: int, instances: int | None, checkpoint: str) -> dict[str, Any]:
    """Plays all policies: scores with intervals, paired differences to equal and to constant weights, and costs."""
    count = run.size(instances or SLOW.get(case, INSTANCES), 5)
    usual = load_problem(case_arguments(case)["problem"])
    given = {"train_steps": 40 if run.smoke else length * usual.defaults.train_steps, "checkpoint": checkpoint}
    settings = found_settings(case)
    names = policies(case, run.smoke)
    frame = played(case, names, settings, run, instances=count, num_envs=min(count, NUM_ENVS), **given)
    over_equal = case in VANISHING
    frame = rescored(frame, metrics_of(frame, "ew") if over_equal else single_task(case, settings, range(count), **given))
    summary = mtl_gym.summarize(frame)["policies"]
    against = verdicts_with(summary, CONSTANT) if CONSTANT in summary else {}
    apart = discrimination(frame)
    runs = frame.drop_duplicates(["policy", "instance"])
    rows = {
        name: {
            "scores": [round(float(own), 3) for own in of_policy(runs, name)["delta_m"]],
            "kinds": {kind: round(float(of_policy(runs, name)[kind].mean()), 2) for kind in KINDS.values() if kind in runs},
            **{key: settings[name][key] for key in ("policy", "factor", "trainings") if name in settings},
            "delta_m": _rounded(own["delta_m"]),
            "over": {other: _rounded(own["paired"][other]) for other in ("ew", CONSTANT) if other in own["paired"]},
            **({"on constant": against[name].verdict} if name in against else {}),
            "diverged": own["diverged"],
            "passes": list(own["cost"].values()),
        }
        for name, own in summary.items()
    }
    return {
        **{"instances": count, "length": length, **searched_in(case), "checkpoint": checkpoint},
        **{"kernels": described(running_kernels("cpu")), "search": _found(SEARCHED, case).get("trainings")},
        "smallest_difference": SMALLEST,
        "discrimination": {name: value for name, value in apart.items() if not (over_equal and name.endswith("over_single_task"))},
        "policies": rows,
    }


def of_policy(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """A policy's rows, by instance."""
    return runs[runs["policy"] == name].sort_values("instance")


def found_settings(case: str) -> dict[str, dict[str, Any]]:
    """What ``benchmarks/search.py`` found on a case, by label: the best ``policy`` and ``factor`` of the problem's rate."""
    return dict(_found(SETTINGS, case).get("methods", {}))


def at_rate(case: str, factor: float, **arguments: Any) -> dict[str, Any]:
    """The arguments of an environment with a multiple of the problem's learning rate."""
    given = {**case_arguments(case), **arguments}
    usual = check_arguments(specification(LOSS_WEIGHTING), **given).recipe.lr
    return given if factor == 1 else {**given, "lr": factor * usual}


def played(
    case: str, names: Mapping[str, str], settings: Mapping[str, Any], run: Run, *, instances: int, num_envs: int, **given: Any
) -> pd.DataFrame:
    """The comparison of policies by label, each with its setting; those with the same learning rate are played together."""
    by_factor: dict[float, dict[str, str]] = {}
    for label, name in names.items():
        found = settings.get(label, {})
        if label == CONSTANT and found.get("policy") != name:
            found = {}  # the rate is that of other weights
        by_factor.setdefault(found.get("factor", 1.0), {})[label] = found.get("policy", name)
    counts = {"instances": instances, "num_envs": num_envs, "smallest_difference": SMALLEST}
    rates = {factor: at_rate(case, factor, **given) for factor in by_factor}
    frames = [mtl_gym.compare(own, out=run.kept, **counts, **rates[factor]) for factor, own in by_factor.items()]
    joined = pd.concat(frames, ignore_index=True)
    results = Attached([result for frame in frames for result in frame.attrs["results"].results])
    joined.attrs = {"about": frames[0].attrs["about"], "results": results}  # which pandas drops where they differ
    return joined


def single_task(case: str, settings: Mapping[str, Any], ids: Sequence[int], **given: Any) -> dict[int, dict[str, float]]:
    """Test metrics of single-task learning by instance, at the learning rate that was found for it."""
    arguments = at_rate(case, settings.get(SINGLE_TASK, {}).get("factor", 1.0), **given)
    return reference_metrics(check_arguments(specification(LOSS_WEIGHTING), **arguments), ids)


def metrics_of(frame: pd.DataFrame, policy: str) -> dict[int, dict[str, float]]:
    """A policy's test metrics by instance and ``task/metric``."""
    rows = frame[frame["policy"] == policy]
    names = rows["task"] + "/" + rows["metric"]
    return {instance: dict(zip(names[own.index], own["value"], strict=True)) for instance, own in rows.groupby("instance")}


def rescored(frame: pd.DataFrame, references: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
    """The frame with gains over these metrics by instance, also those of each kind of task; -100 where a training diverged."""
    tables = {policy: metrics_of(frame, policy) for policy in frame["policy"].unique()}
    lost = set(frame.loc[frame["diverged"], ["policy", "instance"]].itertuples(index=False, name=None))

    def gains(policy: str, id: int) -> dict[str, float]:
        own = {"delta_m": delta_m(tables[policy][id], references[id]), **delta_m_by_kind(tables[policy][id], references[id])}
        return dict.fromkeys(own, WORST_DELTA_M) if (policy, id) in lost else own

    known = {(policy, id): gains(policy, id) for policy, own in tables.items() for id in own}
    rows = pd.DataFrame([known[key] for key in zip(frame["policy"], frame["instance"], strict=True)], index=frame.index)
    return frame.assign(**{name: rows[name] for name in rows if name in frame})


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}


def command(parser: argparse.ArgumentParser) -> None:
    """Adds the options beyond those that all benchmarks have."""
    parser.add_argument("--length", type=int, default=1, help="length of a training, over the problem's (default: 1)")
    parser.add_argument("--checkpoint", choices=[*CHECKPOINTS], default="last", help="of every training (default: last)")
    parser.add_argument("--instances", type=int, help="instances (default: 30, or 10 where networks are convolutional)")


def main(words: Sequence[str] | None = None) -> None:
    """Studies each case and adds it to the results."""
    run: Run
    run, given = command_line(words, command)
    for name in cases(run):
        known = run.known()
        known[name] = study(name, run, given.length, given.instances, given.checkpoint)
        run.write({name: known[name] for name in (*PROBLEMS, *CASES) if name in known})
        print(name, json.dumps(known[name]["policies"]), flush=True)


if __name__ == "__main__":
    main()
