"""Generates what follows from the code: the tables of README.md, of the agents' cards and of docs/. ``--check`` only compares.

python -m docs.generate
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium

from docs.accelerator_tables import accelerator_tables
from docs.grouping_tables import grouping_regrets, grouping_tables
from docs.leaderboard_tables import leaderboard_tables, reference_tables, sensitivity_tables
from docs.merging_tables import merging_speed, merging_tables
from docs.method_tables import method_tables
from docs.structure_tables import structure_tables
from docs.training_tables import training_tables
from docs.transfer_tables import card_tables, transfer_tables
from mtl_gym.agents import AGENTS
from mtl_gym.agents.algorithm import algorithm
from mtl_gym.cli import first_sentence, tables
from mtl_gym.environments import TASK_GROUPING, specification
from mtl_gym.envs.arguments import supported_problems

ROOT = Path(__file__).parents[1]


def markdown(rows: list[dict[str, str]]) -> str:
    """A table of rows."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def _cells(row: dict[str, str]) -> list[str]:
    return [f"`{value}`" if name in ("id", "name", "home") else value for name, value in row.items()]


def with_tables(path: Path, rows_by_name: dict[str, list[dict[str, str]]]) -> str:
    """A page with the tables between its markers replaced."""
    text = path.read_text()
    for name, rows in rows_by_name.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + markdown(rows) + "\n" + end + rest.split(end)[1]
    return text


def listed() -> dict[str, list[dict[str, str]]]:
    """What ``mtl-gym list`` shows, with the problems that each environment supports."""
    found = {name: rows for name, rows in tables().items() if name != "suites"}
    for row in found["environments"]:
        row["problems"] = ", ".join(supported_problems(specification(row["id"])))
    return found


def suite_tables() -> dict[str, list[dict[str, str]]]:
    """What ``mtl-gym list suites`` shows, and how well `standard` ranks."""
    file = ROOT / "benchmarks" / "results" / "suite_ranks.json"
    ranks = [
        {
            "rows": f"{kind}, {row['policies']} policies",
            "`standard`": f"{row['suite']:.2f}",
            "all studies": f"{row['all studies']:.2f}",
            "random choices": ", ".join(f"{own:.2f}" for own in row["random choices"]),
        }
        for kind, row in json.loads(file.read_text()).items()
    ]
    return {"suites": tables()["suites"], "ranks": ranks, **reference_tables(), **sensitivity_tables()}


def offline_tables() -> dict[str, list[dict[str, str]]]:
    """What ``benchmarks/offline.py`` last measured of a policy that was trained offline."""
    study = json.loads((ROOT / "benchmarks" / "results" / "offline.json").read_text())
    rows = [
        {
            "policy": name if " " in name else f"`{name}`",
            "delta_m": _interval(row["delta_m"]),
            "minus teacher": "" if name == "teacher" else _interval(row["minus teacher"]),
        }
        for name, row in study["policies"].items()
    ]
    return {"offline": rows}


def algorithms() -> list[dict[str, str]]:
    """What ``mtl-gym train`` offers."""
    found = {name: algorithm(name) for name in AGENTS}
    return [
        {"name": name, "what": first_sentence(row), "actions": row.actions.__name__, "home": row.home}
        for name, row in found.items()
    ]


def held_out() -> dict[str, list[dict[str, str]]]:
    """What ``benchmarks/heldout.py`` last measured of the pretrained agent."""
    studies = json.loads((ROOT / "benchmarks" / "results" / "heldout.json").read_text())
    first = studies["digits-4"]
    heuristics = [{"policy": f"`{name}`", "delta_m": f"{first['delta_m'][name]:.1f}"} for name in first["delta_m"]]
    for row, name in zip(heuristics, first["delta_m"], strict=True):
        row["ppo minus policy"] = _interval(first["ppo minus"][name]) if name != "ppo" else ""
        row["with an unseen task"] = _interval(first["with an unseen task"]["ppo minus"][name]) if name != "ppo" else ""
    suites = [
        {
            "suite": f"`{name}`",
            "instances": str(row["instances"]),
            "ew": f"{row['delta_m']['ew']:.1f}",
            "init": f"{row['delta_m']['init']:.1f}" if "init" in row["delta_m"] else "",
            "ppo": f"{row['delta_m']['ppo']:.1f}",
            "ppo minus ew": _interval(row["ppo minus"]["ew"]),
            "ppo minus init": _interval(row["ppo minus"].get("init")),
            "ppo minus gls": _interval(row["ppo minus"].get("gls")),
        }
        for name, row in studies.items()
    ]
    ranked = sorted(heuristics, key=lambda row: -float(row["delta_m"]))
    return {"training": trained(), "heuristics": ranked, "search": searched(first), "suites": suites}


def of_samples() -> dict[str, list[dict[str, str]]]:
    """What ``benchmarks/sample_weighting.py`` last measured of the methods that weight samples."""
    studies = json.loads((ROOT / "benchmarks" / "results" / "sample_weighting.json").read_text())
    suites = [
        {
            "suite": f"`{name}`",
            **{policy: f"{row['accuracy'][policy]:.3f}" for policy in ("uniform", "slgrad", "ppo", "oracle")},
            "slgrad minus uniform": _interval(row["slgrad minus uniform"]),
            "ppo minus uniform": _interval(row["ppo minus"]["uniform"]),
            "ppo minus slgrad": _interval(row["ppo minus"]["slgrad"]),
            "fraction of the gap closed": _fraction_closed(row),
            "AUC of slgrad": _optional(row["auc"]["slgrad"]),
            "AUC of ppo": _optional(row["auc"]["ppo"]),
        }
        for name, row in studies.items()
    ]
    long, short = studies["digits-1500"], studies["digits-300"]
    methods = [
        {
            "policy": f"`{name}`",
            "300 steps": f"{short['accuracy'][name]:.3f}",
            "1500 steps": f"{long['accuracy'][name]:.3f}",
            "AUC, 1500 steps": _optional(long["auc"][name]),
            "passes, 1500 steps": " + ".join(f"{count:,}" for count in long["passes"][name]),
        }
        for name in sorted(long["accuracy"], key=lambda name: -float(long["accuracy"][name]))
    ]
    return {"training": trained("pretrain-ppo_samples"), "methods": methods, "suites": suites}


def _fraction_closed(row: dict[str, Any]) -> str:
    """Empty where there is no gap to close."""
    accuracy = row["accuracy"]
    gap = accuracy["oracle"] - max(accuracy["uniform"], accuracy["slgrad"])
    return f"{row['share of the way to the true mask']:.2f}" if gap > 0.01 else ""


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def trained(name: str = "pretrain") -> list[dict[str, str]]:
    """How ``benchmarks/pretrain.py`` last trained an agent."""
    row = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    facts = {
        "decisions": f"{row['time_steps']:,}, in {row['episodes']:,} episodes",
        "time": f"{row['seconds'] / 60:.1f} minutes on {_threads(row)}, evaluations included",
        "chosen": f"after {row['chosen after']:,.0f} decisions, the best of {row['evaluations']} on the *reward* split",
        "seed": str(row["seed"]),
    }
    return [{"fact": name, "value": value} for name, value in facts.items()]


def _threads(row: dict[str, Any]) -> str:
    count = row.get("threads", 2)
    return f"{count} thread" if count == 1 else f"{count} threads"


def searched(first: dict[str, Any]) -> list[dict[str, str]]:
    """The search over constant weights, compared with the agent."""
    closed, gain = first["share closed"], first["constants minus best heuristic"]
    fraction = f"{closed['mean']:.2f} [{closed['low']:.2f}, {closed['high']:.2f}]"
    facts = {
        "delta_m of the best of 48 constants, chosen on *reward* at 48 times the cost": f"{first['best constants']:.1f}",
        f"gap to the best heuristic, `{first['best heuristic']}`": _interval(gain),
        "fraction of that gap closed by `ppo`, at the cost of one run": fraction,
    }
    return [{"what": name, "measured": value} for name, value in facts.items()]


def _interval(row: dict[str, float] | None) -> str:
    return "" if row is None else f"{row['mean']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def speed() -> list[dict[str, str]]:
    """What ``benchmarks/speed.py`` last measured."""
    studies = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text())
    dense, heuristics, convolutional, memory, imports, *others = studies.values()
    plain, fused = dense["hand-written"], dense["hand-written, fused"]
    slowest = min(heuristics, key=lambda name: heuristics[name]["ratio"])
    rows = {
        "speed of 16 trainings side by side (`num_envs=16`), relative to `Adam`": _ratio(plain["vector, N = 16"]),
        "the same, relative to `Adam(fused=True)`": _ratio(fused["vector, N = 16"]),
        "speed of 64 trainings side by side, relative to `Adam(fused=True)`": _ratio(fused["vector, N = 64"]),
        "speed of one training (scalar environment), relative to `Adam(fused=True)`": _ratio(fused["scalar"]),
        f"speed of 16 trainings with the slowest heuristic that acts at every step (`{slowest}`), relative to `Adam`": _ratio(
            heuristics[slowest]
        ),
        "speed of 16 trainings with convolutions on a CPU: `multimnist`": _ratio(convolutional["vector, N = 16, multimnist"]),
        "speed of 16 trainings with convolutions on a CPU: `stereo`": _ratio(convolutional["vector, N = 16, stereo"]),
        "peak memory of 1,024 trainings of `digits`": f"{memory['N = 1024'] / 1024:.1f} GiB",
        "time of `import mtl_gym` beyond `import gymnasium`": f"{1000 * imports['seconds beyond gymnasium']:.1f} ms",
        **{
            f"speed of 16 trainings with {name.replace('rates', 'learning rates')}, relative to one rate": _ratio(row)
            for rates in others
            for name, row in rates.items()
        },
    }
    rows |= sample_speed() | merging_speed()
    return [{"what": what, "measured": measured} for what, measured in rows.items()]


def sample_speed() -> dict[str, str]:
    """What ``benchmarks/sample_speed.py`` last measured."""
    studies = json.loads((ROOT / "benchmarks" / "results" / "sample_speed.json").read_text())
    one, many = studies["N = 1"], studies["N = 64"]
    return {
        "time of a decision of `slgrad`, relative to a plain training step, 64 trainings": _ratio(many["decision"]),
        "the same, one training": _ratio(one["decision"]),
        "its training step alone (no environment), one training and 64": f"{_ratio(one['SLGrad'])} and {_ratio(many['SLGrad'])}",
        "time of a loop over all samples' and tasks' backward passes, relative to that step": f"{one['loop over SLGrad']:.0f} x",
    }


def _ratio(row: dict[str, float]) -> str:
    return f"{row['ratio']:.1f} x ({row['lower quartile']:.1f} to {row['upper quartile']:.1f})"


def pages() -> dict[Path, str]:
    """A page for each environment, from its docstring, with what was measured of groups."""
    result = {}
    for id in sorted(id for id in gymnasium.registry if id.startswith("mtl_gym/")):
        module, name = str(gymnasium.spec(id).entry_point).split(":")
        manual = inspect.getdoc(getattr(__import__(module, fromlist=[name]), name)) or ""
        stem = module.rsplit(".", 1)[1]
        measured = _measured(grouping_tables()) if id == TASK_GROUPING else ""
        result[ROOT / "docs" / f"{stem}.md"] = f"# `{id}`\n\n{_fenced(manual)}\n{measured}"
    return result


def _measured(found: dict[str, list[dict[str, str]]]) -> str:
    """A section of tables, each below its title; empty if there are none."""
    parts = [f"\n{title}\n\n{markdown(rows)}\n" for title, rows in found.items()]
    return "".join(["\n## Measured\n", *parts]) if parts else ""


def _fenced(manual: str) -> str:
    """Puts the example's lines into a code block."""
    head, rest = manual.split("## Example\n")
    example, tail = rest.split("\n\n", 1)
    head, tail = head.replace("``", "`"), tail.replace("``", "`")
    return f"{head}## Example\n```python\n{example}\n```\n\n{tail}"


def main() -> int:
    """Writes or compares; returns the exit status."""
    cards = {
        "ppo": held_out(),
        "ppo_samples": of_samples(),
        "ppo_merging": {"training": trained("pretrain-ppo_merging"), **merging_tables()},
        "ppo_threshold": {"training": trained("pretrain-ppo_threshold")},
        "ppo_rule": card_tables(),
        "ppo_groups": {"training": trained("pretrain-ppo_groups"), **grouping_regrets()},
    }
    of_cards = {ROOT / "agents" / "pretrained" / f"{name}.md": found for name, found in cards.items()}
    tables_of = {
        "suites": suite_tables,
        "leaderboards": leaderboard_tables,
        "methods": method_tables,
        "accelerators": accelerator_tables,
        "offline": offline_tables,
        "structures": structure_tables,
        "transfer": transfer_tables,
        "your_training": training_tables,
    }
    measured = {ROOT / "docs" / f"{name}.md": made() for name, made in tables_of.items()}
    wanted = {
        ROOT / "README.md": with_tables(ROOT / "README.md", {**listed(), "algorithms": algorithms(), "speed": speed()}),
        **{card: with_tables(card, found) for card, found in of_cards.items()},
        **{page: with_tables(page, found) for page, found in measured.items()},
        **pages(),
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(wanted[path])
        return 0
    for path in stale:
        sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run `make docs`\n")
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
