"""TensorBoard event files of a comparison: a run for each policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mtl_gym.cache import locked
from mtl_gym.evaluation.medians import median_curves
from mtl_gym.evaluation.results import Result, traced_tasks

SCORE = "delta_m"
"""Tag of the scores, which the HParams tab shows beside the policy."""


def write_events(results: Sequence[Result], summary: Mapping[str, Any], folder: Path) -> None:
    """Writes each policy's scalars and its name to its own run in the log folder, replacing earlier event files.

    Scalars are ``loss/<task>`` (held-out) and ``weight/<task>``, medians over instances by optimiser step, and ``delta_m``, the
    mean of the first n instances by n, whose last value is the score. The HParams tab shows policies and scores; what
    all policies share is on the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):  # another process may write the same runs
            _clear(folder)
            _write_runs(results, summary, folder)
    except OSError as error:  # those of a full disk name no file
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _write_runs(results: Sequence[Result], summary: Mapping[str, Any], folder: Path) -> None:
    for number, label in enumerate(summary["policies"]):
        run = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9._=,-]+', '_', label)[:80]}"
        with SummaryWriter(str(run)) as writer:
            _write_curves(writer, results, label)
            scores = np.array([result.delta_m for result in results if result.policy == label])
            for count in range(1, len(scores) + 1):
                writer.add_scalar(SCORE, float(scores[:count].mean()), count)
            experiment, *session = hparams({"policy": label}, {SCORE: 0.0}, {"policy": list(summary["policies"])})
            for part in (_shown(experiment), *session):
                writer.file_writer.add_summary(part)


def _shown(experiment: Any) -> Any:
    """The summary of an experiment, marked as one whose policies differ, since the HParams tab hides what does not."""
    about = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(about.content)
    content.experiment.hparam_infos[0].differs = True
    about.content = content.SerializeToString()
    return experiment


def _write_curves(writer: SummaryWriter, results: Sequence[Result], policy: str) -> None:
    tasks = traced_tasks(results)
    for kind in ("loss", "weight"):
        steps, medians = median_curves(results, policy, tasks, kind)
        for task, curve in zip(tasks, medians, strict=True):
            known = np.flatnonzero(np.isfinite(curve))
            for place in known if len(known) > 1 else ():  # one point is no curve
                writer.add_scalar(f"{kind}/{task}", float(curve[place]), int(steps[place]))


def _clear(folder: Path) -> None:
    """Removes only the event files of earlier runs."""
    for run in folder.glob("[0-9][0-9]*-*"):
        for events in run.glob("events.out.tfevents.*"):
            events.unlink()
        with suppress(OSError):  # it holds other files
            run.rmdir()
