"""TensorBoard event files of a comparison: a run for each policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from mtl_gym.evaluation.results import Result


def write_events(results: Sequence[Result], summary: Mapping[str, Any], folder: Path) -> None:
    """Writes each policy's scalars and hyper-parameters to a run of its own; the event files of an earlier call are replaced.

    Scalars are ``loss/<task>`` (held-out) and ``weight/<task>``, medians over instances by optimiser step, and ``delta_m/iqm``,
    ``delta_m/low`` and ``delta_m/high``.

    Args:
        results: All results.
        summary: Of :func:`mtl_gym.summarize`.
        folder: The log folder.
    """
    _clear(folder)
    settings = {name: value for name, value in summary["about"]["arguments"].items() if isinstance(value, (str, int, float, bool))}
    for number, (label, row) in enumerate(summary["policies"].items()):
        run = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9._=,-]+', '_', label)[:80]}"
        with SummaryWriter(str(run)) as writer:
            _write_curves(writer, [result for result in results if result.policy == label])
            scores = {f"delta_m/{name}": row["delta_m"][name] for name in ("iqm", "low", "high")}
            known = {name: value for name, value in scores.items() if value is not None}
            writer.add_hparams({"policy": label, "problem": summary["about"]["problem"], **settings}, known, run_name=".")


def _write_curves(writer: SummaryWriter, results: Sequence[Result]) -> None:
    steps = max((result.curves.get("step", []) for result in results), key=len)
    for kind in ("loss", "weight"):
        for task in dict.fromkeys(task for result in results for task in result.curves.get(kind, {})):
            for place, step in enumerate(steps):
                columns = [result.curves[kind].get(task, []) for result in results]
                values = [column[place] for column in columns if len(column) > place and column[place] is not None]
                if values:
                    writer.add_scalar(f"{kind}/{task}", float(np.median(values)), step)


def _clear(folder: Path) -> None:
    """Removes the event files of earlier runs, and nothing else."""
    for run in folder.glob("[0-9][0-9]-*"):
        for events in run.glob("events.out.tfevents.*"):
            events.unlink()
        if not any(run.iterdir()):
            run.rmdir()
