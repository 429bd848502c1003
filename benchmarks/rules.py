"""How much there is to win by adapting task weights, and the best rule that does not adapt.

    python -m benchmarks.rules                          every problem and case (an hour; rerun to resume)
    python -m benchmarks.rules teachers digits_few      some of them

*Headroom* is what the best of 64 rules with constant coefficients, chosen for each instance, is ahead of the best single one: what
a policy could win by choosing coefficients by what it sees of an instance. The choice for an instance is by its score on *reward*,
and that of the single rule by the mean score on *reward* of the other half of the instances; both are read on *test*. Scores are
logs of metrics (the reward `quality`), times 100: differences are points of `delta_m` where they are small.

*Shares* say of what the variance of returns (on *reward*, over all trainings) consists: of what instances differ in, of what rules
are worth on average, and of what a rule is worth on one instance more than on others; ``noise`` is what remains of the last two if
an action is changed by a hundredth: the part that a policy cannot learn.

Rules are ``action="rule"``, with the level and the coefficients of ``first``, ``loss`` and ``base`` from a Sobol sequence, a third
of them with coefficients of all features that cost no more than losses; the first ones are those of ``NAMED``. Writes
``benchmarks/results/rules.json`` problem by problem.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from benchmarks.measuring import Run, case_arguments, cases, command_line, vector_env
from mtl_gym.decisions.task_features import DEFAULT_FEATURES, LEVEL_REACH, TASK_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.problems.scores import log_qualities

Array = npt.NDArray[np.float64]
RULES, INSTANCES, ROWS = 64, 24, 96
COPIES, CHANGE = 8, 0.01
"""Rules that are played a second time, with actions changed by this much."""
SLOW, LARGE = {"multimnist": 6, "stereo": 6}, {"multimnist": 48, "stereo": 24}
"""Instances, and trainings side by side, of problems with convolutions."""
SPLITS = ("reward", "test")
DIVERGED = 20.0
REACH = np.array([LEVEL_REACH, *(TASK_FEATURES[name].reach for name in DEFAULT_FEATURES)])
"""The coefficients (1 + F,) of an action of 1."""
COLUMNS = ("level", *DEFAULT_FEATURES)
"""What the coefficients (1 + F,) of a rule belong to."""


def coefficients(**own: float) -> Array:
    """The coefficients (1 + F,) of a rule, 0 where none are given."""
    return np.array([own.get(name, 0.0) for name in COLUMNS])


INIT, BASE = coefficients(first=1), coefficients(first=1, base=1, level=1)
"""The coefficients of `init`, and of the rule that follows `stch`: over the losses of the second epoch and the relative loss."""
NAMED = {
    "ew": coefficients(),
    "init": INIT,
    "si-mean": coefficients(first=1, loss=1),
    "base": coefficients(first=1, base=1),
    "init-level": coefficients(first=1, level=1),
    "level": BASE,
    "strong": coefficients(first=1, base=1, level=2),
}
USUAL = {"level": (0.0, 2.0), "first": (0.0, 1.5), "loss": (-0.5, 1.5), "base": (0.0, 1.5)}
"""The ranges of the coefficients that all rules have."""
FAMILIES: dict[str, dict[str, Any]] = {
    "teachers": {"problem": "teachers", "num_tasks": 4},
    "teachers_few": {"problem": "teachers", "num_tasks": 4, "distribution": {"labels": (0.05, 0.5), "size": (0.3, 1.0)}},
    "teachers_scaled": {"problem": "teachers", "num_tasks": 4, "distribution": {"scale": (0.1, 10.0), "labels": (0.1, 1.0)}},
    "teachers_shifted": {"problem": "teachers_shifted", "num_tasks": 4, "distribution": {"labels": (0.1, 1.0)}},
    "teachers_long": {"problem": "teachers", "num_tasks": 4, "train_steps": 1200, "distribution": {"labels": (0.1, 1.0)}},
}
"""Settings of families, in place of the problems of that name."""


def arguments_of(name: str) -> dict[str, Any]:
    """The environment's arguments of a setting."""
    return FAMILIES[name] if name in FAMILIES else case_arguments(name)


def rules(count: int) -> Array:
    """Coefficients (count, 1 + F) in natural units: the named ones, then a Sobol sequence."""
    points = qmc.Sobol(len(COLUMNS), seed=0).random(count)
    table = np.zeros(points.shape)
    for name, (low, high) in USUAL.items():
        place = COLUMNS.index(name)
        table[:, place] = low + (high - low) * points[:, place]
    others = [place for place, name in enumerate(COLUMNS) if name not in USUAL]
    table[2::3, others] = (0.5 * REACH * (2 * points - 1))[2::3][:, others]
    named = list(NAMED.values())[:count]
    table[: len(named)] = named
    return table


def actions(table: Array) -> npt.NDArray[np.float32]:
    """Actions (R, 1 + F) of the default features that have these coefficients (R, 1 + F)."""
    return np.asarray(table / REACH, np.float32).clip(-1, 1)


def played(arguments: Mapping[str, Any], table: Array, ids: Sequence[int], side_by_side: int = ROWS) -> dict[str, Array]:
    """Scores (R, n) by split of trainings of n instances with R rules each.

    Where one diverged, it is 20 points worse than the worst of the others on that instance.
    """
    rows = [(rule, place) for place in range(len(ids)) for rule in range(len(table))]
    scores = {split: np.full((len(table), len(ids)), np.nan) for split in SPLITS}
    given = {"action": "rule", "decisions": 15, "observe": ["progress"], "reward": "none", **arguments}
    for start in range(0, len(rows), side_by_side):
        chosen = rows[start : start + side_by_side]
        envs = vector_env(LOSS_WEIGHTING, len(chosen), autoreset_mode="Disabled", **given)
        envs.reset(options={"instance": [ids[place] for _, place in chosen]})
        held = actions(table[[rule for rule, _ in chosen]])
        while not envs.finished.all():
            envs.step(held)
        for split in SPLITS:
            scores[split][tuple(np.transpose(chosen))] = final_quality(envs, split)
        envs.close()
    worst = {split: np.nan_to_num(np.nanmin(own, axis=0, initial=np.inf), posinf=0.0) - DIVERGED for split, own in scores.items()}
    return {split: np.where(np.isnan(own), worst[split], own) for split, own in scores.items()}


def final_quality(envs: Any, split: str) -> Array:
    """The final `quality` (n,) of each row on a split, in points; NaN where the training diverged."""
    trainer = envs.decision.trainer
    quality = log_qualities(trainer.problem, trainer.metrics(split)).gather(1, trainer.ledger.tasks).mean(1).double().numpy()
    return np.asarray(np.where(trainer.finite().numpy() & np.isfinite(quality), 100 * quality, np.nan))


def headroom(reward: Array, test: Array) -> Array:
    """What the best rule of each instance is ahead of the best single one of the other half (n,), on *test*; scores are (R, n)."""
    count = reward.shape[1]
    best = test[reward.argmax(0), np.arange(count)]
    single = np.empty(count)
    for half in (np.arange(count) % 2 == 0, np.arange(count) % 2 == 1):
        single[half] = test[reward[:, ~half].mean(1).argmax(), half]
    return np.asarray(best - single)


def shares(reward: Array, copies: Array) -> dict[str, float]:
    """Shares of the variance of returns (R, n); ``copies`` (C, n) are returns of the first C rules, slightly changed.

    Those of ``instances``, ``rules`` and ``both`` add up to 1; ``noise`` is a part of the last two.
    """
    total = reward.var()
    alone = {"instances": reward.mean(0).var() / total, "rules": reward.mean(1).var() / total}
    noise = np.square(copies - reward[: len(copies)]).mean() / 2 / total
    rows = {**alone, "both": 1 - sum(alone.values()), "noise": noise}
    return {name: round(float(value), 4) for name, value in rows.items()}


def interval(values: Array) -> list[float]:
    """The mean and its 95 % interval, by the bootstrap over instances."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    return [round(float(own), 2) for own in (values.mean(), *np.quantile(drawn, [0.025, 0.975]))]


def measured(name: str, count: int, instances: int, **others: Any) -> dict[str, Any]:
    """The headroom of a setting, with the scores of the named rules over equal weights and the best single rule."""
    table = rules(count)
    moved = table[:COPIES] + CHANGE * REACH * np.random.default_rng(0).choice([-1, 1], table[:COPIES].shape)
    both = played({**arguments_of(name), **others}, np.concatenate([table, moved]), range(instances), LARGE.get(name, ROWS))
    scores = {split: own[:count] for split, own in both.items()}
    over = {rule: interval(scores["test"][row] - scores["test"][0]) for row, rule in enumerate(NAMED)}
    best = int(scores["reward"].mean(1).argmax())
    return {
        "instances": instances,
        "rules": count,
        "headroom": interval(headroom(scores["reward"], scores["test"])),
        "shares": shares(scores["reward"], both["reward"][count:]),
        "over equal weights": over | {"best single": interval(scores["test"][best] - scores["test"][0])},
        "best single": dict(zip(COLUMNS, table[best].round(2).tolist(), strict=True)),
    }


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--instances", type=int, help="instances of each problem")


def main(words: Sequence[str] | None = None) -> None:
    """Measures each setting and adds it to the results."""
    run: Run
    run, given = command_line(words, _options)
    known, short = run.known(), {"train_steps": 20} if run.smoke else {}
    names = cases(run) if run.names else [*cases(run), *FAMILIES]
    table = sha256(rules(RULES).tobytes()).hexdigest()[:8]
    for name in [name for name in names if run.names or known.get(name, {}).get("table") != table]:
        count, instances = (len(NAMED), 2) if run.smoke else (RULES, given.instances or SLOW.get(name, INSTANCES))
        known[name] = {**measured(name, count, instances, **short), "table": table}
        run.write(known)
        print(
            name,
            json.dumps({key: known[name][key] for key in ("headroom", "shares", "over equal weights", "best single")}),
            flush=True,
        )


if __name__ == "__main__":
    main()
