"""The command ``mtl-gym check``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mtl_gym.checks import choose
from mtl_gym.cli.messages import console, print_json, reported
from mtl_gym.cli.options import Json, assignments, complete_problem
from mtl_gym.cli.rows import Row, print_rows
from mtl_gym.plugins import COMMANDS, entries, load

Found = Mapping[str, Any]
_MOST_TASKS, _MOST_CONFLICTS = 12, 3
_NEARLY = 1e-3
"""A mean of so many deviations is shown as 0."""
_SETTINGS = {name: name for name in ("hidden_sizes", "batch_size", "train_steps", "device")}

_PROBLEM = "A name (mtl-gym list problems), or file.py:function or module:function for one of your own."
_SET = "hidden_sizes, batch_size, train_steps or device instead of the problem's defaults, key=value; can be repeated."


def check(
    problem: Annotated[str, typer.Argument(help=_PROBLEM, autocompletion=complete_problem)],
    settings: Annotated[list[str] | None, typer.Option("--set", help=_SET, metavar="KEY=VALUE")] = None,
    as_json: Json = False,
) -> None:
    """Say what a problem is like before it is trained: labels, scales, conflicts, time, memory, and what to mind.

    The exit status is 1 if it cannot be trained or compared as it is.
    """
    with reported():
        from mtl_gym.evaluation.problem_check import check as measured  # with torch

        arguments = assignments("--set", settings or [])
        for name in arguments:
            choose("--set", name, _SETTINGS)
        found = measured(problem, **arguments)
        if as_json:
            print_json(found)
        else:
            _show(found)
    if found["error"] is not None:
        raise typer.Exit(1)


def _show(found: Found) -> None:
    tasks = [_task(name, own) for name, own in found["tasks"].items()]
    count = "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    _grid(f"{found['problem']}: {count}", _lines(found))
    print_rows("tasks", tasks[:_MOST_TASKS])
    if len(tasks) > _MOST_TASKS:
        console.print(f"{len(tasks) - _MOST_TASKS} more tasks: --json\n", markup=False, highlight=False)
    reasons = {id.removeprefix("mtl_gym/"): reason for id, reason in found["environments"].items()}
    _grid("environments", {id: "yes" if reason is None else f"no: {reason}" for id, reason in reasons.items()})
    console.print("warnings" if found["warnings"] else "no warnings", style="bold")
    for number, text in enumerate(found["warnings"], start=1):
        console.print(f"{number}. {text}", markup=False, highlight=False)


def _grid(title: str, lines: Mapping[str, str]) -> None:
    """Labels and texts, which are folded beside them."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines.items():
        table.add_row(escape(label), escape(text))
    console.print(table)
    console.print()


def _lines(found: Found) -> dict[str, str]:
    inputs, lines = found["inputs"], {"samples": ", ".join(f"{name} {count:,}" for name, count in found["splits"].items())}
    size = _size(inputs["shape"])
    spread = [inputs[f"{end}_deviation"] for end in ("smallest", "largest")]
    varying = "" if spread[0] is None else f", deviations {spread[0]:.2g} to {spread[1]:.2g}"
    lines["inputs"] = f"{size}; means up to {inputs['largest_mean']:.2g}{varying}" if inputs["features"] else size
    if found["network"]:
        own = found["network"]
        lines["network"] = f"{own['identity']}: {own['shared']:,} shared parameters, {own['heads']:,} in heads"
        if "computed by" in own:
            lines["replicas"] = f"by {own['computed by']}"
    if found["training"]:
        lines |= _training(found["training"])
    if found["conflicts"]:
        lines["conflicts"] = _conflicts(found["conflicts"])
    fixed = {axis: reason for axis, reason in found["axes"].items() if reason is not None}
    reasons = "; ".join(f"{axis}: {reason}" for axis, reason in fixed.items())
    lines["axes"] = f"all but {reasons}" if fixed else "all: instances can draw their own splits too"
    return lines


def _size(shape: list[int] | dict[str, list[int]]) -> str:
    """The shape of a sample, or the shapes by name."""
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_size(own)}" for name, own in shape.items())
    return " x ".join(map(str, shape))


def _training(own: Found) -> dict[str, str]:
    steps, needed, seconds = own["step_seconds"], own["bytes"], own["seconds"]
    lines = {
        "training": f"{own['train_steps']:,} steps of {own['batch_size']} samples, {own['epochs']:.3g} epochs, lr {own['lr']:g}",
        "a step": f"{duration(steps['1'])}, {duration(steps['16'])} for 16 side by side",
        "memory": f"at most {_memory(needed['1'])}, {_memory(needed['16'])} for 16",
        "one run": duration(seconds["training"]),
        "compare": f"{duration(seconds['references'])} for references, then {duration(seconds['policy'])} a policy (20 instances)",
    }
    return lines | {name: line for name, estimate in _estimates().items() if (line := estimate(own, duration))}


def _estimates() -> dict[str, Callable[[Found, Callable[[float], str]], str | None]]:
    """What commands of other packages say of the time that they take: their attribute ``estimate``, by the commands' names."""
    found = {entry.name: getattr(load(entry), "estimate", None) for entry in entries(COMMANDS)}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def duration(seconds: float | None) -> str:
    """A time in seconds as a text of two digits and a unit."""
    if seconds is None:
        return "too large"
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{1000 * seconds:.0f} ms"


def _memory(needed: int | None) -> str:
    return "too large" if needed is None else f"{needed / 1e6:,.0f} MB"


def _conflicts(own: Found) -> str:
    worst = [f"{a} and {b} {cosine:+.2f}" for a, b, cosine in own["cosines"][:_MOST_CONFLICTS]]
    if not worst:
        return "no pair of tasks with shared gradients"
    return f"{own['negative']} of {own['pairs']} pairs of gradients have a negative cosine; lowest: {', '.join(worst)}"


def _task(name: str, own: Found) -> Row:
    low, high = min(own["missing"].values()), max(own["missing"].values())
    return {
        "task": name,
        "kind": "number" if own["kind"] == "real" else own["kind"],
        "missing": f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}",
        "loss at start": _number(own.get("start_loss")),
        "gradient": _number(own.get("start_gradient")),
        "labels": _labels(own),
        "metrics": ", ".join(own["metrics"]),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _labels(own: Found) -> str:
    if own["kind"] == "real":
        mean, spread = own["mean"], own["deviation"]
        return "" if mean is None else f"{0.0 if abs(mean) < _NEARLY * spread else mean:.2g} ± {spread:.2g}"
    parts = own["balance"]
    rare, frequent = min(parts, key=parts.__getitem__), max(parts, key=parts.__getitem__)
    if own["kind"] == "binary":
        return f"{rare}: {parts[rare]:.1%}"
    return f"{len(parts)} classes, {rare}: {parts[rare]:.1%} to {frequent}: {parts[frequent]:.1%}"
