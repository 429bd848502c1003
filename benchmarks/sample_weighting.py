"""What sample weights achieve: every method on instances with wrong labels, in short and long trainings.

    python -m benchmarks.sample_weighting               every suite (two hours on one core; rerun to resume)
    python -m benchmarks.sample_weighting digits-1500   one of them

Test accuracies of the main task, paired differences with 95 % intervals (Student), areas under the curve for right against wrong
labels of the main task (mean over the training), and passes. Writes ``benchmarks/results/sample_weighting.json`` and the figure
``docs/sample_weighting.svg``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.heldout import paired
from benchmarks.measuring import ROOT, Run, command_line
from mtl_gym.environments import SAMPLE_WEIGHTING
from mtl_gym.envs.panels import log_axis
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.styles import SETTINGS, styles
from mtl_gym.policies.grammar import make_policy

PICTURE = ROOT / "docs" / "sample_weighting.svg"
FEW = ("uniform", "slgrad", "oracle", "ppo")
ALL = (*FEW, "main", "slgrad:norm=sum", "l2rw", "gcs", "ol-aux", "small-loss", "self-paced", "ohem", "focal")
BEST, LEARNED = "oracle", "ppo"


def flipped(fraction: float, train_steps: int, **others: Any) -> dict[str, Any]:
    """A suite of digits_scales, or of another problem, with a fraction of wrong labels."""
    noise = {"distribution": {"noise": [fraction, fraction]}, "train_steps": train_steps}
    return {"problem": "digits_scales", "main_task": "digit", "tasks": ["digit", "parity", "loop"], "lr": 2e-3, **noise, **others}


def binary(fraction: float, train_steps: int) -> dict[str, Any]:
    """Parity as the main task."""
    return flipped(fraction, train_steps, main_task="parity")


def multimnist(fraction: float, train_steps: int, **others: Any) -> dict[str, Any]:
    """The digit on the top left as the main task."""
    return flipped(fraction, train_steps, problem="multimnist", main_task="top_left", tasks=["top_left", "bottom_right"], **others)


SUITES: dict[str, dict[str, Any]] = {
    "digits-300": flipped(0.6, 300),
    "digits-1500": flipped(0.6, 1500),
    "digits-300-40%": flipped(0.4, 300),
    "digits-1500-40%": flipped(0.4, 1500),
    "digits-1500-clean": flipped(0.0, 1500),
    "digits-1500-harmful": flipped(
        0.4, 1500, distribution={"noise": [0.4, 0.4], "unrelated": [0.5, 0.5], "nearest_flip": [0.5, 0.5]}
    ),
    "digits-1500-one class": flipped(0.0, 1500, distribution={"constant_label": [0.4, 0.4]}),
    "parity-1500": binary(0.4, 1500),
    "digits-1500-sgd": flipped(0.6, 1500, optimizer="sgd", lr=0.05),
    "multimnist-300": multimnist(0.6, 300),
    "multimnist-300-sgd": multimnist(0.6, 300, optimizer="sgd", lr=0.05),
}
"""Name to the environment's arguments."""
WITH_ALL = ("digits-300", "digits-1500")
INSTANCES = 30
DRAWN = ("digits-300", "digits-1500", "digits-1500-sgd", "multimnist-300")


def main(words: Sequence[str] | None = None) -> None:
    """Plays the suites, adds them to the results (results of another agent are dropped), and plots the curves."""
    chosen: Run = command_line(words)
    agent = make_policy(LEARNED, SAMPLE_WEIGHTING).spec["agent"]  # type: ignore[attr-defined]
    known = {name: row for name, row in chosen.known().items() if row["agent"] == agent}
    for name in chosen.chosen([*SUITES]):
        arguments = SUITES[name] | ({"train_steps": 50} if chosen.smoke else {})
        policies = list(ALL if name in WITH_ALL and not chosen.smoke else FEW)
        planned = plan(policies, SAMPLE_WEIGHTING, instances=chosen.size(INSTANCES, 2), num_envs=15, **arguments)
        results = run(planned, out=chosen.kept)
        known[name] = {"agent": agent, "arguments": arguments, **measured(results, arguments["main_task"])}
        chosen.write({name: known[name] for name in SUITES if name in known})
        shown = {key: value for key, value in known[name].items() if key not in ("agent", "arguments", "curves")}
        print(name, json.dumps(shown), flush=True)
    draw({name: known[name] for name in DRAWN if name in known}, chosen.beside(PICTURE))


def measured(results: Sequence[Result], task: str) -> dict[str, Any]:
    """Accuracies, differences, areas and passes of each policy."""
    names = list(dict.fromkeys(result.policy for result in results))
    own = {name: [result for result in results if result.policy == name] for name in names}
    accuracy = {name: np.array([result.metrics[f"{task}/accuracy"] for result in rows]) for name, rows in own.items()}
    better = max(("uniform", "slgrad"), key=lambda name: float(accuracy[name].mean()))
    room = accuracy[BEST].mean() - accuracy[better].mean()
    return {
        "instances": len(own[names[0]]),
        "accuracy": {name: round(float(values.mean()), 4) for name, values in accuracy.items()},
        "slgrad minus uniform": _differences(accuracy["slgrad"], accuracy["uniform"]),
        "ppo minus": {name: _differences(accuracy[LEARNED], accuracy[name]) for name in names if name != LEARNED},
        "share of the way to the true mask": round(float((accuracy[LEARNED].mean() - accuracy[better].mean()) / room), 2),
        "auc": {name: _rounded(_mean([_auc(result, task) for result in rows])) for name, rows in own.items()},
        "passes": {name: [round(rows[0].cost[kind]) for kind in ("forward", "backward")] for name, rows in own.items()},
        "curves": {name: _curves(rows, task) for name, rows in own.items() if name in FEW},
    }


def _differences(first: Any, second: Any) -> dict[str, float]:
    """In percentage points."""
    return paired(100 * (first - second))


def _auc(result: Result, task: str) -> float:
    return _mean(result.curves["auc"][task])


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def _curves(rows: Sequence[Result], task: str) -> dict[str, list[float | None]]:
    """Means over the instances: held-out loss and area, by step."""
    curves = [result.curves for result in rows]
    steps = min((own["step"] for own in curves), key=len)
    tables = {
        kind: [_rounded(_mean([own[kind][task][place] for own in curves])) for place in range(len(steps))]
        for kind in ("loss", "auc")
    }
    return {"step": steps, **tables}


def draw(suites: dict[str, Any], path: Path | None) -> None:
    """Plots held-out losses and areas over the training, a column for each suite."""
    if not suites or path is None:
        return
    with matplotlib.rc_context(SETTINGS | {"svg.fonttype": "path"}):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        panels = figure.subplots(2, len(suites), sharex="col", squeeze=False)
        for column, (name, row) in enumerate(suites.items()):
            looks = styles(row["curves"])
            for policy, curves in row["curves"].items():
                for axes, kind in zip(panels[:, column], ("loss", "auc"), strict=True):
                    values = [np.nan if value is None else value for value in curves[kind]]
                    axes.plot(curves["step"], values, label=policy, markevery=6, **looks[policy])
            drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in panels[0, column].lines])
            log_axis(panels[0, column], 0.9 * np.nanmin(drawn), 1.1 * np.nanmax(drawn))
            panels[0, column].set_title(name)
            panels[1, column].set(ylim=(0, 1.02), xlabel="optimiser step")
        panels[0, 0].set_ylabel("main task's held-out loss")
        panels[1, 0].set_ylabel("P(right label weighs more)")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), ncols=4, loc="outside upper left", frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
