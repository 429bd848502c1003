"""Checks results that were read from a file, which may be damaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_gym.evaluation.result import Result
from mtl_gym.problems.metrics import impossible
from mtl_gym.problems.scores import WORST_DELTA_M

_TYPES: dict[str, tuple[type, ...]] = {
    "policy": (str,),
    "instance": (int,),
    "delta_m": (int, float),
    "diverged": (bool,),
    "episode_return": (int, float),
    **dict.fromkeys(("metrics", "references", "cost", "curves", "planted", "outcome", "kernels"), (dict,)),
    "batch": (list,),
}
_BEST_DELTA_M = 1e9  # nobody gains as much
_KERNELS = {"capability": str, "torch": str, "threads": int, "device": str}


def checked(result: Result) -> Result:
    """Returns a result that was read from a file, if it can be what was written.

    Raises:
        Exception: Of any class, if not: other types, metrics without references, curves of different lengths, metrics that
            are out of range, or numbers that are not finite, except the metrics of a training that diverged.
    """
    for name, kinds in _TYPES.items():
        if type(getattr(result, name)) not in kinds:
            raise TypeError(f"{name}={getattr(result, name)!r:.60}")
    if not set(result.metrics) <= set(result.references):
        raise ValueError(f"metrics of {', '.join(result.metrics)}, references of {', '.join(result.references)}")
    for name, values in {"cost": result.cost, "references": result.references, **result.planted}.items():
        _check_numbers(name, [*values.values()])
    sound = not result.diverged and result.delta_m != WORST_DELTA_M
    _check_numbers("metrics", [*result.metrics.values()], finite=sound)
    if wrong := {**impossible(result.references), **(impossible(result.metrics) if sound else {})}:
        raise ValueError(f"metrics out of range: {wrong!r:.60}")
    _check_numbers("delta_m and episode_return", [result.delta_m, result.episode_return])
    if not WORST_DELTA_M <= result.delta_m <= _BEST_DELTA_M:
        raise ValueError(f"delta_m {result.delta_m!r:.60}")
    if any(own < 0 for own in result.cost.values()):
        raise ValueError(f"cost {result.cost!r:.60}")
    if "step" in result.curves:
        _check_curves(result.curves)
    if result.kernels and any(type(result.kernels.get(name)) is not kind for name, kind in _KERNELS.items()):
        raise ValueError(f"kernels {result.kernels!r:.60}")
    if result.batch and not (all(type(own) is int for own in result.batch) and result.instance in result.batch):
        raise ValueError(f"batch {result.batch!r:.60}")
    return result


def _check_numbers(name: str, values: Sequence[Any], finite: bool = True) -> None:
    if not all(type(value) in (int, float) and (math.isfinite(value) or not finite) for value in values):
        raise ValueError(f"{name} {values!r:.60}")


def _check_curves(curves: Mapping[str, Any]) -> None:
    steps = curves["step"]
    _check_numbers("steps", steps)
    for own in [values for name, table in curves.items() if name != "step" for values in table.values()]:
        if len(own) != len(steps):
            raise ValueError(f"a curve of {len(own)} instead of {len(steps)} points")
        _check_numbers("curves", [value for value in own if value is not None])
