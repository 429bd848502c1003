"""Pools: the samples of a problem, from which an instance may draw its own splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.inputs import each, parts
from mtl_gym.problems.splits import SPLITS, Split

Indices = npt.NDArray[np.int64]
_TRIES = 1000
"""Permutations of the groups that are tried; one suffices wherever the pool is larger than its splits by three of its groups."""


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """Mean and deviation of inputs and labels over a training split, as float32; 0 and 1 where nothing is scaled.

    Attributes:
        input_mean: (*shape); () if inputs have names or are whole numbers.
        input_deviation: (*shape).
        target_mean: (T,).
        target_deviation: (T,).
    """

    input_mean: Tensor
    input_deviation: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def normalised(self, samples: Split) -> Split:
        """Samples with inputs and labels less their mean, over their deviation."""
        over = (-1, *[1] * (samples.targets.ndim - 2))  # over the pixels of dense labels
        targets = (samples.targets - self.target_mean.view(over)) / self.target_deviation.view(over)
        return Split(each(self.normalised_inputs, samples.inputs), targets)

    def normalised_inputs(self, inputs: Tensor) -> Tensor:
        """Inputs likewise; whole numbers are left as they are."""
        return (inputs - self.input_mean) / self.input_deviation if inputs.is_floating_point() else inputs


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples of a problem, before normalisation, and how they may be divided.

    Attributes:
        samples: All P samples.
        rows: The problem's own split: indices (n,) of the samples in *train*, *meta*, *reward* and *test*.
        groups: (P,) whole numbers. Samples with the same number are never in two splits (equal inputs, blocks of a series);
            ``None`` if each sample stands alone.
        scaled_inputs: Whether inputs are standardised, feature by feature, by their mean and deviation over *train*; or the
            features (indices of a sample's first axis) that are.
        scaled_targets: Columns of labels that are standardised likewise, over the known labels: those of regressions.

    Raises:
        TypeError: If ``samples`` is not a :class:`Split`, or rows, groups or columns are not whole numbers.
        ValueError: If a split is missing or empty, rows are out of range or in two splits, a group is in two splits, columns do not
            exist, or whole groups cannot be divided into splits of these sizes.
    """

    samples: Split
    rows: Mapping[str, Indices]
    groups: Indices | None = None
    scaled_inputs: bool | tuple[int, ...] = False
    scaled_targets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Split):
            raise TypeError(should("samples", "be a Split", type(self.samples).__name__))
        if set(self.rows) != set(SPLITS):
            raise ValueError(should("rows", f"be those of {', '.join(SPLITS)}", list(self.rows)))
        keep, columns = object.__setattr__, self.samples.targets.shape[1]
        keep(self, "samples", self._on_cpu())
        keep(self, "rows", {name: _indices(f"rows[{name!r}]", self.rows[name], len(self.samples)) for name in SPLITS})
        if not isinstance(self.scaled_inputs, bool):
            features = parts(self.samples.inputs)[0].shape[1]
            keep(self, "scaled_inputs", tuple(_indices("scaled_inputs", self.scaled_inputs, features).tolist()))
        keep(self, "scaled_targets", tuple(_indices("scaled_targets", self.scaled_targets, columns).tolist()))
        if self.groups is not None:
            keep(self, "groups", _groups(self.groups, len(self.samples)))
        self._check()

    def __repr__(self) -> str:
        sizes = {name: len(rows) for name, rows in self.rows.items()}
        groups = "none" if self.groups is None else int(self.groups.max()) + 1
        scaled = f"scaled_inputs={self.scaled_inputs}, scaled_targets={self.scaled_targets}"
        return f"Pool({self.samples}, rows {sizes}, groups {groups}, {scaled})"

    def _on_cpu(self) -> Split:
        """The samples on the CPU; as numbers if they are scaled."""
        if self.scaled_inputs is not False and not isinstance(self.samples.inputs, Tensor):
            raise ValueError(
                should("scaled_inputs", "be False where inputs have names: standardise them before", self.scaled_inputs)
            )
        return (self.samples if self.scaled_inputs is False else self.samples.of_numbers()).to(torch.device("cpu"))

    def _check(self) -> None:
        taken = np.concatenate(list(self.rows.values()))
        numbers, counts = np.unique(taken, return_counts=True)
        if (counts > 1).any():
            raise ValueError(should("rows", "have each sample in at most one split, once", numbers[counts > 1][:20].tolist()))
        if any(len(rows) == 0 for rows in self.rows.values()):
            raise ValueError(should("rows", "have samples in each split", {name: len(rows) for name, rows in self.rows.items()}))
        if self.groups is not None:
            held = np.concatenate([np.unique(self.groups[rows]) for rows in self.rows.values()])
            numbers, counts = np.unique(held, return_counts=True)
            if (counts > 1).any():
                raise ValueError(should("rows", "have each group in one split", numbers[counts > 1][:20].tolist()))
        self.drawn(np.random.default_rng(0))

    @classmethod
    def in_order(cls, samples: Split, sizes: Mapping[str, int]) -> Pool:
        """A pool of samples that each stand alone, divided by ``sizes`` in their order; nothing is scaled."""
        ends = np.cumsum(list(sizes.values()))
        return cls(samples, dict(zip(sizes, np.split(np.arange(ends[-1]), ends[:-1]), strict=True)))

    def drawn(self, rng: np.random.Generator) -> dict[str, Indices]:
        """Draws new splits of the same sizes as ``rows``: disjoint, and of whole groups.

        The splits take the groups one after the other in a random order. What a split's last group has over its size stays unused.

        Returns:
            Indices (n,) of the samples of each split, ascending; a pure function of the generator's state.

        Raises:
            ValueError: If the groups do not fit into splits of these sizes.
        """
        sizes = {name: len(rows) for name, rows in self.rows.items()}
        number = np.arange(len(self.samples)) if self.groups is None else self.groups
        counts = np.bincount(number)
        for _ in range(_TRIES):
            order = rng.permutation(len(counts))
            ends = counts[order].cumsum()
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            samples, start, drawn = np.argsort(place[number], kind="stable"), 0, {}
            for name, size in sizes.items():
                drawn[name] = np.sort(samples[start : start + size])
                start = int(ends[min(int(np.searchsorted(ends, start + size)), len(ends) - 1)])  # where the next group begins
            if all(len(drawn[name]) == size for name, size in sizes.items()):
                return drawn
        condition = f"allow disjoint splits of whole groups with {', '.join(f'{size} in {name}' for name, size in sizes.items())}"
        raise ValueError(should("groups", condition, f"{len(counts)} groups of {len(number)} samples", "Make the splits smaller."))

    @property
    def division(self) -> tuple[Any, ...]:
        """All but the samples, in plain Python: rows, groups and what is scaled."""
        rows = {name: own.tolist() for name, own in self.rows.items()}
        return rows, None if self.groups is None else self.groups.tolist(), self.scaled_inputs, self.scaled_targets

    def moments(self, train: Indices) -> Moments:
        """The mean and deviation of what is scaled, over these samples; a constant is only centred. NaN labels do not count."""
        rows = torch.from_numpy(np.asarray(train, dtype=np.int64))
        inputs, targets = self.samples.inputs, self.samples.targets
        columns = list(self.scaled_targets)
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            scaled = slice(None) if self.scaled_inputs is True else list(self.scaled_inputs or ())
            of_inputs = _scales(inputs[0], scaled, inputs[rows][:, scaled])
        else:
            of_inputs = torch.zeros(()), torch.ones(())
        known = targets[rows][:, columns].movedim(1, 0).flatten(1).T  # of dense labels, pixels are samples
        return Moments(*of_inputs, *_scales(targets[0].reshape(targets.shape[1], -1)[:, 0], columns, known))

    def splits(self, rows: Mapping[str, Indices]) -> dict[str, Split]:
        """The splits of these samples, normalised by the moments of *train*."""
        moments = self.moments(rows["train"])
        chosen = {name: torch.from_numpy(np.asarray(own, dtype=np.int64)) for name, own in rows.items()}
        return {name: moments.normalised(self.samples[own]) for name, own in chosen.items()}


def equal_inputs(inputs: npt.ArrayLike) -> Indices | None:
    """Groups (P,) of samples whose inputs (P, *shape) are equal; ``None`` if none are."""
    values = np.ascontiguousarray(np.asarray(inputs, dtype=np.float32)) + np.float32(0)  # -0 equals 0
    numbers: dict[bytes, int] = {}
    groups = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in values], dtype=np.int64)
    return groups if len(numbers) < len(groups) else None


def _scales(like: Tensor, scaled: Any, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the shape of ``like``, whose entries ``scaled`` have those of ``values`` (n, *shape), NaN apart."""
    mean, deviation = torch.zeros_like(like), torch.ones_like(like)
    values = values.double()  # in which the mean of equal float32 numbers is exact, and their deviation 0
    middle = values.nanmean(0).nan_to_num()
    spread = (values - middle).square().nanmean(0).nan_to_num().sqrt()
    mean[scaled], deviation[scaled] = middle.float(), torch.where(spread > 0, spread, 1.0).float()
    return mean, deviation


def _indices(name: str, values: Any, count: int) -> Indices:
    numbers = _whole(name, values)
    if numbers.ndim != 1:
        raise ValueError(should(name, "have one axis", numbers.shape))
    wrong = numbers[(numbers < 0) | (numbers >= count)]
    if len(wrong):
        raise ValueError(should(name, f"be indices from 0 to {count - 1}", wrong[:20].tolist()))
    return numbers


def _groups(values: Any, count: int) -> Indices:
    """Groups (P,) with the numbers 0, 1, 2 ..."""
    numbers = _whole("groups", values)
    if numbers.shape != (count,):
        raise ValueError(should("groups", f"have the shape {(count,)}, as the samples", numbers.shape))
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _whole(name: str, values: Any) -> Indices:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(should(name, "be whole numbers", values))
    return array.astype(np.int64)
