"""Collects what rules are worth from different points of different trainings on: the logged set from which the bandit learns.

    python -m benchmarks.logged                  16 chunks of each source (half an hour; rerun to resume)
    python -m benchmarks.logged --chunks 32      more of them

A chunk is 24 training instances with 4 siblings each, of a length and a number of tasks of its own. All siblings follow the same
random rule for the first decisions (none to ten of 15, chunk by chunk); then each holds a rule of its own to the end, the first one
`init`. So siblings share what they observe at that point, and differ in what they do from there on. Kept are these observations,
the actions and the final `quality` on *reward*, in points; *test* plays no part. Chunks go to ``runs/logged``: they are no result,
but what ``benchmarks/bandit.py`` learns from.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from benchmarks.folds import fingerprint, training_sources
from benchmarks.measuring import ROOT, Run, command_line, vector_env
from benchmarks.rules import COLUMNS, INIT, REACH, final_quality
from mtl_gym.cache import write_whole
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems import load_problem
from mtl_gym.problems.axes import resolve
from mtl_gym.problems.instances import TRAINING_IDS

Array = npt.NDArray[np.float64]
FOLDER = ROOT / "runs" / "logged"
CHUNKS, INSTANCES, SIBLINGS, DECISIONS = 16, 24, 4, 15
SMOKE: dict[str, Any] = {"instances": 2, "train_steps": 30}
SWITCHES = (0, 2, 1, 4, 0, 7, 2, 10, 1, 5, 0, 3, 2, 6, 1, 8)
"""The decision from which on siblings differ, chunk by chunk."""
RATES, LENGTHS, TASKS = (0.25, 4.0), (0.5, 1.0, 2.0), (2, 6)
"""Factors of a source's learning rate and length, and numbers of tasks, of which each chunk draws its own."""
RANGES = {"level": (-1.0, 2.0), "part": (-0.2, 1.2), "whole": (0.6, 1.4), "loss": (-0.5, 0.7), "gap": (-0.5, 0.7)}
OTHERS = 0.12
"""Ranges of rules: the level, the coefficient of ``base``, a factor, and the coefficients of ``loss`` and ``gap``.

Other sets taught nothing: one of much wider ranges (most of those rules are much worse than `init`, and what was best by a model of
them lost to it), one around `init` alone, where nothing is better in the mean, and one in which the level was the power of a rule's
own weights, so that what each of its numbers did depended on all others.
"""
FIRST = TRAINING_IDS[0] + 2 * 10**6
OBSERVED = (
    *("progress", "log_epoch", "log_lr", "log_num_tasks", "pooled_first", "pooled_log_loss", "pooled_slope", "pooled_gap"),
    *("pooled_noise", "pooled_overfit", "pooled_overfit_slope", "pooled_meta_slope"),
)
"""What agents for any number of tasks observe: nothing that costs more than losses and held-out losses."""
Chunk = dict[str, npt.NDArray[Any]]


def drawn(rng: np.random.Generator, count: int) -> Array:
    """Random coefficients (count, 1 + F) around those of `init` and of the rule over the base.

    Half of the rows have coefficients of the other features, up to ``OTHERS`` times their reach.
    """
    level, part, whole, loss, gap = rng.uniform(*zip(*RANGES.values(), strict=True), (count, len(RANGES))).T
    table = np.where(rng.random(count)[:, None] < 0.5, rng.uniform(-OTHERS, OTHERS, (count, len(REACH))) * REACH, 0.0)
    own = {"level": level, "first": whole, "base": whole * part, "loss": loss, "gap": gap}
    for name, values in own.items():
        table[:, COLUMNS.index(name)] = values
    return table


def drawn_settings(source: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A source's settings in a chunk: its own length, number of tasks and rates; every other chunk of shipped data has all labels.

    So neither a number of tasks nor a rate tells from which source an instance is, and trainings that are too short and too long,
    and rates that are too small and too large, are all there.
    """
    rng = np.random.default_rng([number, crc32(json.dumps(source, sort_keys=True).encode())])
    problem = load_problem(source["problem"])
    steps = source.get("train_steps", problem.defaults.train_steps)
    usual = dict(resolve(source.get("distribution", "clean"), problem))
    if problem.family is None and number % 2:
        usual = {"split": (1.0, 1.0)} if problem.pool else {}
    return {
        **source,
        "train_steps": int(steps * rng.choice(LENGTHS)) // DECISIONS * DECISIONS,
        "num_tasks": min(int(rng.integers(TASKS[0], TASKS[1] + 1)), problem.num_tasks),
        "distribution": {**usual, "lr": RATES},
    }


def collected(
    source: Mapping[str, Any], number: int, instances: int = INSTANCES, make: Callable[..., Any] = vector_env, **others: Any
) -> Chunk:
    """A chunk: ``x_<name>`` (n, F) observed, ``actions`` (n, S, A), ``quality`` and ``diverged`` (n, S), ``switch``.

    ``make`` makes the environments.
    """
    rng = np.random.default_rng([number, 1])
    switch = SWITCHES[number % len(SWITCHES)]
    prefix = np.repeat(drawn(rng, instances), SIBLINGS, axis=0)
    held = drawn(rng, instances * SIBLINGS)
    held[::SIBLINGS] = INIT
    ids = np.repeat(FIRST + number * instances + np.arange(instances), SIBLINGS)
    given = {
        "action": "rule",
        "decisions": DECISIONS,
        "observe": list(OBSERVED),
        "reward": "none",
        **drawn_settings(source, number),
        **others,
    }
    envs = make(LOSS_WEIGHTING, len(ids), autoreset_mode="Disabled", **given)
    seen, _ = envs.reset(options={"instance": ids})
    actions, before = (np.asarray(table / REACH, np.float32).clip(-1, 1) for table in (held, prefix))
    for _ in range(switch):
        seen = envs.step(before)[0]
    known = {f"x_{name}": values[::SIBLINGS].copy() for name, values in seen.items()}
    while not envs.finished.all():
        envs.step(actions)
    quality = final_quality(envs, "reward")
    rows = {"quality": quality, "diverged": np.isnan(quality)}
    envs.close()
    shaped = {name: own.reshape(instances, SIBLINGS) for name, own in rows.items()}
    return {**known, **shaped, "actions": actions.reshape(instances, SIBLINGS, -1), "switch": np.array(switch)}


def chunk_file(source: Mapping[str, Any], number: int, folder: Path = FOLDER) -> Path:
    """Where a chunk is kept: the folder's name tells the source."""
    drawn = (RANGES, OTHERS, INSTANCES, SIBLINGS, DECISIONS, SWITCHES, RATES, LENGTHS, TASKS, INIT.tolist())
    about = json.dumps({**fingerprint(dict(source)), "observed": OBSERVED, "drawn": drawn}, sort_keys=True, default=str)
    return folder / f"{source['problem']}-{sha256(about.encode()).hexdigest()[:8]}" / f"{number}.npz"


def logged(source: Mapping[str, Any], folder: Path = FOLDER) -> list[Chunk]:
    """The chunks of a source that are there, in order."""
    files = sorted(chunk_file(source, 0, folder).parent.glob("*.npz"), key=lambda file: int(file.stem))
    return [dict(np.load(file)) for file in files]


def collect(sources: Sequence[Mapping[str, Any]], chunks: int, folder: Path = FOLDER, **given: Any) -> int:
    """Collects what is missing, chunk by chunk of all sources; returns the number of chunks of a source."""
    for number in range(chunks):
        for source in sources:
            file = chunk_file(source, number, folder)
            if not file.is_file():
                content = io.BytesIO()
                np.savez_compressed(content, **collected(source, number, **given))
                write_whole(file, content.getvalue())
                print(number, source, flush=True)
    return chunks


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=CHUNKS)


def main(words: Sequence[str] | None = None) -> None:
    """Collects the logged set of all sources."""
    run: Run
    run, given = command_line(words, _options)
    if run.smoke:
        with tempfile.TemporaryDirectory() as folder:
            collect(training_sources(None)[::9], 1, Path(folder), **SMOKE)
    else:
        collect(training_sources(None), given.chunks)


if __name__ == "__main__":
    main()
