"""What to mind in a problem: rules over what :func:`mtl_gym.check` has found, each a fact and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]
FEW_LABELS, FEW_OF_CLASS, RATIO = 50, 10, 100.0
"""Labels of a task in a split, and samples of a class in *train*, below which there is a warning; the ratio of two losses above."""
_SHOWN = 4
LARGE, SMALL = 10.0, 0.01
"""Means and deviations of inputs and labels between which no standardising is called for."""


def warnings_of(found: Found) -> list[str]:
    """The sentences, the most serious first."""
    return [text for rule in RULES for text in rule(found)]


def _error(found: Found) -> Iterator[str]:
    if found["error"] is not None:
        yield f"It cannot be used as it is: {found['error']}"


def _recurring(found: Found) -> Iterator[str]:
    several = {name: count for name, count in found["recurring"].items() if count}
    if several:
        counts = ", ".join(f"{count} of {found['splits'][name]} in {name}" for name, count in several.items())
        yield (
            f"Inputs recur in several splits ({counts}), so scores on test may be memorised. Keep equal inputs in one split: "
            "groups=mtl_gym.problems.pools.equal_inputs(x) in Problem.from_arrays or a Pool."
        )


def _few_labels(found: Found) -> Iterator[str]:
    few: dict[str, str] = {}
    for name, task in found["tasks"].items():
        counts = [f"{count} in {split}" for split, count in task["labels"].items() if count < FEW_LABELS]
        few |= {name: ", ".join(counts)} if counts else {}
    if few:
        remedy = "Make these splits larger, or leave the tasks out."
        yield f"Few labels, so losses and scores on them are imprecise: {_listed(few)}. {remedy}"


def _rare_classes(found: Found) -> Iterator[str]:
    rare: dict[str, str] = {}
    for name, task in found["tasks"].items():
        total = task["labels"]["train"]
        own = [label for label, part in task.get("balance", {}).items() if round(part * total) < FEW_OF_CLASS]
        rare |= {name: ", ".join(own[:_SHOWN]) + (f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else "")} if own else {}
    if rare:
        yield f"Classes with fewer than {FEW_OF_CLASS} samples in train: {_listed(rare)}. Merge them, or leave the tasks out."


def _listed(by_task: Mapping[str, str]) -> str:
    """What is said of some tasks, of which the first ones are shown."""
    shown = [f"{name} ({text})" for name, text in [*by_task.items()][:_SHOWN]]
    return ", ".join(shown) + (f" and {len(by_task) - _SHOWN} more tasks" if len(by_task) > _SHOWN else "")


def _scales(found: Found) -> Iterator[str]:
    losses = {name: task.get("start_loss") for name, task in found["tasks"].items()}
    known = {name: loss for name, loss in losses.items() if loss}
    if known and max(known.values()) > RATIO * min(known.values()):
        low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        yield (
            f"Losses start {max(known.values()) / min(known.values()):.3g} times apart ({high} {known[high]:.3g}, {low} "
            f"{known[low]:.3g}), so that equal weights train {high} alone. Standardise its labels, or weigh losses: init, si."
        )


def _labels(found: Found) -> Iterator[str]:
    spreads = {name: task.get("deviation") for name, task in found["tasks"].items()}
    wide = {name: f"{own:.3g}" for name, own in spreads.items() if own is not None and not SMALL <= own <= LARGE}
    if wide:
        yield f"Deviations of labels are far from 1: {_listed(wide)}. Standardise them by train."


def _inputs(found: Found) -> Iterator[str]:
    own = found["inputs"]
    wide = own["largest_deviation"]
    if own["largest_mean"] > LARGE or (wide is not None and not SMALL <= wide <= LARGE):
        deviations = "" if wide is None else f", deviations up to {wide:.3g}"
        yield f"Inputs are not standardised (means up to {own['largest_mean']:.3g}{deviations}). Standardise them by train."


def _constant(found: Found) -> Iterator[str]:
    constant, size = found["inputs"]["constant"], found["inputs"]["features"]
    if constant and found["inputs"]["table"]:
        shown = ", ".join(map(str, constant[:5])) + (" ..." if len(constant) > 5 else "")
        yield f"{len(constant)} of {size} inputs are constant in train ({shown}). Leave them out."


RULES: tuple[Callable[[Found], Iterator[str]], ...] = (
    _error,
    _recurring,
    _few_labels,
    _rare_classes,
    _scales,
    _labels,
    _inputs,
    _constant,
)
