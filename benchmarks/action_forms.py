"""What the form of an action is worth: coefficients of a rule, a number of each task's own, or both, learned alike.

    python -m benchmarks.action_forms       three seeds of each (an hour; rerun to resume)

PPO learns on teachers alone, with the hyper-parameters that ``benchmarks/policy_gradient.py`` found for rules, each form from as
many trainings of the same instances. A number for each task needs their number, so all sources have four tasks, and what is
observed of each task is the same for all forms but the first, which sees what the shipped agent sees. Writes
``benchmarks/results/action_forms.json``: gains over `init` on training instances of the sources that no agent has seen, by form,
seed and source, in deviations between all of them on an instance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.bandit import PLAIN, RUN, gained, settings_of
from benchmarks.folds import TEACHERS
from benchmarks.measuring import ROOT, Run, command_line
from benchmarks.policy_gradient import ROWS, STARTS, best, trained
from mtl_gym.agents.agent import Agent
from mtl_gym.policies.grammar import make_policy

NUM_TASKS, SEEDS, UPDATES, INSTANCES = 4, 3, 8, 48
TASKS = (*RUN, "log_loss", "slope", "gap", "noise")
"""What is observed of each task, without held-out losses."""
FORMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "rule": (RUN, {}),
    "rule, tasks observed": (TASKS, {}),
    "rule and residuals": (TASKS, {"residual_reach": 1.0}),
    "residuals of init": (TASKS, {"action": "residual", "features": None, "weight_range": 10.0}),
}
"""By name: what is observed, and what differs in the environment's arguments."""
AGENTS = ROOT / "runs" / "action_forms"


def learned(form: str, seed: int, updates: int, **others: Any) -> Agent:
    """The agent of a form."""
    observed, own = FORMS[form]
    sources = _sources(**others)
    settings = settings_of(sources, PLAIN, observed, seed)
    rows = [
        {name: value for name, value in {**row, **own}.items() if value is not None}
        for row in (settings.arguments, *settings.others)
    ]
    chosen = {name: value for name, value in best().items() if name not in ("inputs", "start")}
    start = STARTS[best()["start"]] if rows[0]["action"] == "rule" else None
    own_settings = replace(settings, arguments=rows[0], others=rows[1:])
    return trained(own_settings, sources, updates, start, kept=("problem", "num_tasks"), **chosen)


def _sources(**others: Any) -> list[dict[str, Any]]:
    """The sources, with as many tasks each; one of them where others are given."""
    return [{**source, "num_tasks": NUM_TASKS, **others} for source in TEACHERS[: 1 if others else None]]


def study(run: Run, folder: Path) -> dict[str, Any]:
    """Learns what has no file yet, and plays all."""
    seeds, updates, others = run.size(SEEDS, 1), run.size(UPDATES, 1), {"train_steps": 30} if run.smoke else {}
    files = {form: [folder / f"{form.replace(' ', '_')}-{seed}.safetensors" for seed in range(seeds)] for form in FORMS}
    for form, own in files.items():
        for seed, file in enumerate(own):
            if not file.is_file():
                learned(form, seed, updates, **others).save(file)
                print(form, seed, flush=True)
    policies = {f"{form}-{seed}": make_policy(str(file)) for form, own in files.items() for seed, file in enumerate(own)}
    found = gained(policies, _sources(**others), run.size(INSTANCES, 2))
    return {
        "trainings": updates * ROWS * len(_sources(**others)),
        "gains": {form: [found[f"{form}-{seed}"] for seed in range(seeds)] for form in FORMS},
    }


def table(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """By form: the mean gain, and that of each seed."""
    rows = []
    for form, own in found["gains"].items():
        seeds = [mean(gains) for gains in own]
        rows.append((form, f"{mean(seeds):.2f}", ", ".join(f"{one:.2f}" for one in seeds)))
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Learns, plays and writes."""
    run: Run = command_line(words)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) if run.smoke else AGENTS
        folder.mkdir(parents=True, exist_ok=True)
        found = study(run, folder)
    run.write(found)
    for row in table(found):
        print(*row, sep="  ")


if __name__ == "__main__":
    main()
