"""What the pretrained agent reaches on held-out suites, and where it fails. Run after ``benchmarks/pretrain.py``.

    python -m benchmarks.heldout            every suite (about half an hour on two cores; rerun to resume)
    python -m benchmarks.heldout digits-4   one of them

Writes ``benchmarks/results/heldout.json``, from which ``docs/generate.py`` makes the tables of the agent's card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

import mtl_gym
from benchmarks.measuring import ROOT, Run, command_line
from benchmarks.pretrain import TASKS
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems.scores import WORST_DELTA_M, delta_m, relative_gains
from mtl_gym.training.references import average_references, train
from mtl_gym.training.trainer import Trainer

KEPT = ROOT / "runs" / "heldout"
HEURISTICS = ("ew", "init", "si", "gls", "rlw", "uw", "dwa", "imtl-l", "igb")
SHORT = ("ew", "init")
ONLINE = "igbv2"  # the online protocol: it starts untrained and learns during the training
CONSTANTS, SPREAD = 48, 5  # weightings of the search, relative to 1 / L(0), log-uniform over 2^0 to 2^5

SUITES: dict[str, dict[str, Any]] = {
    "digits-4": {"problem": "digits_scales", "num_tasks": 4, "instances": 128},
    "digits-2": {"problem": "digits_scales", "num_tasks": 2, "instances": 100},
    "digits-3": {"problem": "digits_scales", "num_tasks": 3, "instances": 100},
    "digits-6": {"problem": "digits_scales", "num_tasks": 6, "instances": 100},
    "digits-6-clean": {"problem": "digits_scales", "num_tasks": 6, "distribution": "clean", "instances": 100},
    "census-3": {"problem": "census", "num_tasks": 3, "instances": 100},
    "river_flow-8": {"problem": "river_flow", "num_tasks": 8, "instances": 100},
    "yeast-8": {"problem": "yeast", "num_tasks": 8, "instances": 100},
    "quadratic-3": {"problem": "quadratic", "num_tasks": 3, "instances": 100},
    "multimnist-2": {"problem": "multimnist", "num_tasks": 2, "instances": 30},
    "stereo-3": {"problem": "stereo", "num_tasks": 3, "instances": 300},
}
"""Name to the environment's arguments; ``varied`` unless said."""
SLOW = "stereo-3"
"""Its convolutions take minutes per policy, so the agent is compared with equal weights only."""
FIRST = "digits-4"
"""The agent's own family: compared with every heuristic, and with the search over constants."""


def main(words: Sequence[str] | None = None) -> None:
    """Plays the suites and adds them to the results; results of another agent are dropped."""
    run: Run = command_line(words)
    agent = make_policy("ppo").spec["agent"]  # type: ignore[attr-defined]
    known = {name: row for name, row in run.known().items() if row["agent"] == agent}
    for name in run.chosen([*SUITES]):
        arguments = {"distribution": "varied", **SUITES[name], **({"instances": 3, "train_steps": 40} if run.smoke else {})}
        frame = mtl_gym.compare([*(SHORT if run.smoke else others(name)), "ppo"], out=run.kept, num_envs=32, **arguments)
        scores = frame.pivot_table(index="instance", columns="policy", values="delta_m")
        known[name] = {"agent": agent, "arguments": arguments, **differences(scores)}
        if name == FIRST:
            known[name] |= of_unseen_tasks(frame, scores) | shares(scores, searched(arguments, list(scores.index), run.kept))
        run.write({name: known[name] for name in SUITES if name in known})
        print(name, json.dumps(known[name]), flush=True)


def others(name: str) -> list[str]:
    """The policies that the agent is compared with in a suite."""
    if name == SLOW:
        return ["ew"]
    return [*HEURISTICS, ONLINE] if name == FIRST else ["ew", "init", "gls"]


def differences(scores: Any) -> dict[str, Any]:
    """Mean delta_m of each policy, and the agent's paired differences with 95 % intervals (Student)."""
    heuristics = [name for name in scores.columns if name != "ppo"]
    return {
        "instances": len(scores),
        "delta_m": {name: round(float(scores[name].mean()), 2) for name in scores.columns},
        "at -100": {name: int((scores[name] <= WORST_DELTA_M).sum()) for name in scores.columns},
        "ppo minus": {name: paired(scores["ppo"] - scores[name]) for name in heuristics},
    }


def paired(values: Any) -> dict[str, float]:
    """Mean and 95 % interval."""
    values = np.asarray(values, dtype=np.float64)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": round(values.mean(), 2), "low": round(values.mean() - half, 2), "high": round(values.mean() + half, 2)}


def of_unseen_tasks(frame: Any, scores: Any) -> dict[str, Any]:
    """The differences on the instances that include the task held out from training."""
    unseen = frame.loc[~frame["task"].isin(TASKS), "instance"].unique()
    return {"with an unseen task": differences(scores.loc[unseen])}


def searched(arguments: dict[str, Any], ids: list[int], folder: Path | None) -> list[float]:
    """The delta_m on *test* of each instance's best of 48 constant weightings, chosen on *reward*; stored and reused."""
    kept = folder and folder / "constants.json"
    if kept and kept.is_file():
        return list(json.loads(kept.read_text()))
    own = {name: value for name, value in arguments.items() if name != "instances"}
    checked = check_arguments(specification(LOSS_WEIGHTING), **own)
    references, average = reference_metrics(checked, ids), average_references(checked.problem, checked.recipe)
    table = 2.0 ** np.random.default_rng(0).uniform(0, SPREAD, (CONSTANTS, checked.recipe.num_tasks))
    trainer = Trainer(checked.problem, checked.recipe, CONSTANTS)
    best = []
    for id in ids:
        trainer.begin(range(CONSTANTS), [id] * CONSTANTS)
        train(trainer, torch.from_numpy(table).float() / trainer.losses.forward())
        gains = relative_gains(checked.problem, trainer.metrics("reward"), average).gather(1, trainer.ledger.tasks).mean(1)
        row, test = int(gains.nan_to_num(nan=-torch.inf).argmax()), trainer.metrics("test")
        best.append(delta_m({name: float(test[name][row]) for name in trainer.ledger.metric_names(row)}, references[id]))
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(best))
    return best


def shares(scores: Any, best: list[float]) -> dict[str, Any]:
    """What the search reaches, and the fraction of its gap to the best heuristic that the agent closes (bootstrap)."""
    heuristic = max((name for name in HEURISTICS if name in scores), key=lambda name: float(scores[name].mean()))
    base, agent, found = scores[heuristic].to_numpy(), scores["ppo"].to_numpy(), np.asarray(best)

    def share(base: Any, agent: Any, found: Any, axis: int = -1) -> Any:
        return (agent - base).mean(axis) / (found - base).mean(axis)

    draws = {"paired": True, "n_resamples": 2000, "rng": np.random.default_rng(0)}
    interval = scipy.stats.bootstrap((base, agent, found), share, **draws).confidence_interval
    closed = {"mean": share(base, agent, found), "low": interval.low, "high": interval.high}
    return {
        "best heuristic": heuristic,
        "best constants": round(float(found.mean()), 2),
        "constants minus best heuristic": paired(found - base),
        "ppo minus constants": paired(agent - found),
        "share closed": {name: round(float(value), 2) for name, value in closed.items()},
    }


if __name__ == "__main__":
    main()
