"""TensorBoard event files of a comparison: a run for each policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from mtl_gym.cache import locked
from mtl_gym.evaluation.results import Result, median_curve, traced_tasks


def write_events(results: Sequence[Result], summary: Mapping[str, Any], folder: Path) -> None:
    """Writes each policy's scalars and hyper-parameters to its own run in the log folder, replacing earlier event files.

    Scalars are ``loss/<task>`` (held-out) and ``weight/<task>``, medians over instances by optimiser step, and ``delta_m/iqm``,
    ``delta_m/low`` and ``delta_m/high`` of the summary, which :func:`mtl_gym.summarize` computes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):  # another process may write the same runs
            _clear(folder)
            _write_runs(results, summary, folder)
    except OSError as error:  # those of a full disk name no file
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _write_runs(results: Sequence[Result], summary: Mapping[str, Any], folder: Path) -> None:
    settings = {name: value for name, value in summary["about"]["arguments"].items() if isinstance(value, (str, int, float, bool))}
    for number, (label, row) in enumerate(summary["policies"].items()):
        run = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9._=,-]+', '_', label)[:80]}"
        with SummaryWriter(str(run)) as writer:
            _write_curves(writer, results, label)
            scores = row["delta_m"]
            known = {f"delta_m/{name}": scores[name] for name in ("iqm", "low", "high") if scores[name] is not None}
            writer.add_hparams({"policy": label, "problem": summary["about"]["problem"], **settings}, known, run_name=".")


def _write_curves(writer: SummaryWriter, results: Sequence[Result], policy: str) -> None:
    for kind in ("loss", "weight"):
        for task in traced_tasks(results):
            for step, median in zip(*median_curve(results, policy, task, kind), strict=True):
                if np.isfinite(median):
                    writer.add_scalar(f"{kind}/{task}", float(median), int(step))


def _clear(folder: Path) -> None:
    """Removes only the event files of earlier runs."""
    for run in folder.glob("[0-9][0-9]-*"):
        for events in run.glob("events.out.tfevents.*"):
            events.unlink()
        with suppress(OSError):  # it holds other files
            run.rmdir()
