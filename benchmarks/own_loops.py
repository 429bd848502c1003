"""Three trainings with loops of their own, in plain PyTorch, and what a ``LossBalancer`` changes in them.

``images``: a convolutional network with batch norm reads both digits of an overlaid pair, and their sum. ``molecules``: a small
transformer reads molecules as text and predicts 12 assays of toxicity, a quarter of whose labels are hidden. ``tables``:
embeddings of a census's categories predict three facts about a person. None of them uses the library's data loading, networks or
trainer. Ten seeds: each draws the split, the initial weights and the order of the batches. Nothing was tuned: Adam at 3e-3 with a
cosine schedule, policies at their defaults, chosen before the first run. Scores are the mean over tasks of the relative gain of
each metric over equal weights with the same seed, in percent, on *test*. Writes ``benchmarks/results/own_loops.json``, and goes
on from what is there. Half an hour on a core.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

import mtl_gym
from benchmarks.measuring import Run, command_line
from mtl_gym.problems.metrics import METRICS
from mtl_gym.problems.scores import relative_gain
from mtl_gym.problems.sources import shipped

SEEDS = 10
POLICIES = ("ew", "uw", "igb", "cagrad:c=0.4", "ppo")
RATE = 3e-3
HELD_OUT, TEST = 0.15, 0.3
"""Fractions of the samples: for policies that read held-out losses, and for the scores."""
Batch = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Inputs and labels by name; a label is NaN where it is missing."""


@dataclass(frozen=True)
class Training:
    """A network, its data and how it is trained."""

    load: Callable[[], Batch]
    network: Callable[[Mapping[str, Tensor]], nn.Module]
    metrics: Mapping[str, str]  # row of METRICS by task
    steps: int
    batch_size: int = 64


# --- images ----------------------------------------------------------------------------------------------------------------------


class Images(nn.Module):
    """Three convolutions with batch norm, two heads for the digits and one for their sum."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in ((1, 12), (12, 24), (24, 32)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleDict({"first": nn.Linear(64, 10), "second": nn.Linear(64, 10), "sum": nn.Linear(64, 1)})

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features = self.trunk(inputs["image"])
        return {task: head(features) for task, head in self.heads.items()}


def images() -> Batch:
    """Pairs of overlaid digits, all splits of ``multimnist`` together."""
    splits = mtl_gym.load_problem("multimnist").splits.values()
    digits = torch.cat([split.targets for split in splits])
    image = torch.cat([split.inputs for split in splits])
    return {"image": image}, {"first": digits[:, 0], "second": digits[:, 1], "sum": digits.sum(1)}


# --- molecules -------------------------------------------------------------------------------------------------------------------

LONGEST = 48
"""Characters of a molecule that are read."""


class Molecules(nn.Module):
    """A layer of attention over the characters of a molecule; the mean over them feeds twelve heads."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
        self.characters, self.places = nn.Embedding(int(inputs["tokens"].max()) + 1, 32), nn.Embedding(LONGEST, 32)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.heads = nn.Linear(32, 12)

    def shared(self) -> list[nn.Parameter]:
        return [own for part in (self.characters, self.places, self.encoder) for own in part.parameters()]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = inputs["tokens"]
        padding = tokens == 0
        features = self.encoder(self.characters(tokens) + self.places.weight, src_key_padding_mask=padding)
        counts = (~padding).sum(1, keepdim=True)
        outputs = self.heads((features * ~padding[:, :, None]).sum(1) / counts)
        return {f"assay{number}": outputs[:, [number]] for number in range(12)}


def molecules() -> Batch:
    """The molecules of ``tox21`` as characters, cut off after ``LONGEST``; a quarter of the labels is hidden."""
    data = shipped("tox21.npz")
    lines = data["smiles"].tobytes().decode().split("\n")
    known = {character: number + 1 for number, character in enumerate(sorted(set("".join(lines))))}
    tokens = torch.zeros(len(lines), LONGEST, dtype=torch.int64)
    for row, line in enumerate(lines):
        cut = line[:LONGEST]
        tokens[row, : len(cut)] = torch.tensor([known[character] for character in cut])
    hidden = np.random.default_rng(0).random(data["labels"].shape) < 0.25
    labels = torch.from_numpy(np.where((data["labels"] < 0) | hidden, np.nan, data["labels"])).float()
    return {"tokens": tokens}, {f"assay{number}": column for number, column in enumerate(labels.T)}


# --- tables ----------------------------------------------------------------------------------------------------------------------


class Tables(nn.Module):
    """An embedding of each category beside the numbers, then two layers."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        sizes = (inputs["categories"].amax(0) + 1).tolist()
        self.embeddings = nn.ModuleList([nn.Embedding(size, 4) for size in sizes])
        width = 4 * len(sizes) + inputs["numbers"].shape[1]
        self.trunk = nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
        self.heads = nn.Linear(24, 3)

    def shared(self) -> list[nn.Parameter]:
        return [*self.embeddings.parameters(), *self.trunk.parameters()]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        columns = zip(self.embeddings, inputs["categories"].unbind(1), strict=True)
        outputs = self.heads(self.trunk(torch.cat([*(own(column) for own, column in columns), inputs["numbers"]], dim=1)))
        return {task: outputs[:, [number]] for number, task in enumerate(TABLE_TASKS)}


TABLE_TASKS = ("income", "never_married", "college")


def tables() -> Batch:
    """The persons of ``census``: the codes of their categories, without those that are labels, and numbers over their deviation."""
    data = shipped("census_kdd_30k.npz")
    meta = json.loads(str(data["meta"]))
    codes = dict(zip(meta["cat"], data["cat"].astype(np.int64).T, strict=True))  # -1: unknown
    words = {name: np.asarray([*meta["cat"][name], ""])[codes.pop(name)] for name in ("income", "marital_stat", "education")}
    degrees = ("Bachelors", "Masters", "Prof school", "Doctorate")
    college = np.logical_or.reduce([np.char.startswith(words["education"], degree) for degree in degrees])
    found = [np.char.find(words["income"], "50000+") >= 0, words["marital_stat"] == "Never married", college]
    numbers = np.log1p(data["num"][:, [name != "instance_weight" for name in meta["num"]]])
    inputs = {"categories": np.stack([*codes.values()], axis=1) + 1, "numbers": (numbers / numbers.std(0)).astype(np.float32)}
    labels = {task: torch.from_numpy(own).float() for task, own in zip(TABLE_TASKS, found, strict=True)}
    return {name: torch.from_numpy(own) for name, own in inputs.items()}, labels


TRAININGS = {
    "images": Training(images, Images, {"first": "accuracy", "second": "accuracy", "sum": "rmse"}, steps=600),
    "molecules": Training(molecules, Molecules, {f"assay{number}": "auc" for number in range(12)}, steps=600),
    "tables": Training(tables, Tables, dict.fromkeys(TABLE_TASKS, "auc"), steps=600, batch_size=128),
}


# --- the loop --------------------------------------------------------------------------------------------------------------------


def rows_of(data: Batch, rows: Tensor) -> Batch:
    """Some samples."""
    inputs, labels = data
    return {name: own[rows] for name, own in inputs.items()}, {task: own[rows] for task, own in labels.items()}


def losses_of(network: nn.Module, batch: Batch, metrics: Mapping[str, str]) -> dict[str, Tensor | None]:
    """The mean losses over the labelled samples of a batch; ``None`` where there is none."""
    inputs, labels = batch
    found: dict[str, Tensor | None] = {}
    for task, outputs in network(inputs).items():
        known = ~labels[task].isnan()
        own, targets = outputs[known], labels[task][known]
        if not known.any():
            found[task] = None
        elif outputs.shape[1] > 1:
            found[task] = functional.cross_entropy(own, targets.long())
        elif metrics[task] == "auc":
            found[task] = functional.binary_cross_entropy_with_logits(own[:, 0], targets)
        else:
            found[task] = functional.mse_loss(own[:, 0], targets)
    return found


def train(training: Training, data: Batch, policy: str, seed: int, steps: int) -> dict[str, float]:
    """The metrics on *test* after one training."""
    torch.manual_seed(seed)
    order = torch.randperm(len(next(iter(data[1].values()))))
    first, second = int(HELD_OUT * len(order)), int((HELD_OUT + TEST) * len(order))
    held_out, test, rest = rows_of(data, order[:first][:256]), rows_of(data, order[first:second]), order[second:]
    network = training.network(data[0])
    shared = network.shared() if hasattr(network, "shared") else [*network.trunk.parameters()]  # type: ignore[union-attr, operator]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    told: dict[str, Any] = {"train_steps": steps, "steps_per_epoch": len(rest) // training.batch_size, "lr": optimizer}
    balancer = mtl_gym.LossBalancer(policy, [*training.metrics], seed=seed, **told)
    for step in range(steps):
        if "holdout" in balancer.reads and balancer.decision_due:
            with torch.no_grad():
                balancer.observe_holdout(losses_of(network.eval(), held_out, training.metrics))  # type: ignore[arg-type]
        network.train()
        start = step % told["steps_per_epoch"] * training.batch_size
        if start == 0:
            rest = rest[torch.randperm(len(rest))]
        batch = rows_of(data, rest[start : start + training.batch_size])
        optimizer.zero_grad()
        balancer.backward(losses_of(network, batch, training.metrics), shared=shared)  # type: ignore[arg-type]
        optimizer.step()
        schedule.step()
    return scores(network.eval(), test, training.metrics)


def scores(network: nn.Module, test: Batch, metrics: Mapping[str, str]) -> dict[str, float]:
    """Metrics by task."""
    found = {}
    count = len(next(iter(test[1].values())))
    with torch.no_grad():
        parts = [network(rows_of(test, rows)[0]) for rows in torch.arange(count).split(512)]
    for task, metric in metrics.items():
        known = ~test[1][task].isnan()
        outputs = torch.cat([part[task] for part in parts])[known]
        found[task] = float(METRICS[metric].function(outputs.T[None], test[1][task][known][None])[0])
    return found


# --- the study -------------------------------------------------------------------------------------------------------------------


def gains(own: Mapping[str, float], base: Mapping[str, float], metrics: Mapping[str, str]) -> float:
    """The mean over tasks of the relative gain over the base, in percent."""
    return float(np.mean([relative_gain(own[task], base[task], metric) for task, metric in metrics.items()]))


def summary(runs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Mapping[str, str]) -> dict[str, Any]:
    """Each policy's mean metrics, and its gain over equal weights with a 95 % interval over seeds (paired, Student's t)."""
    rows: dict[str, Any] = {}
    for policy, own in runs.items():
        rows[policy] = {task: round(float(np.mean([run[task] for run in own])), 4) for task in metrics}
        pairs = [gains(run, base, metrics) for run, base in zip(own, runs["ew"], strict=False)]
        if policy != "ew" and len(pairs) > 1:
            half = float(stats.t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / np.sqrt(len(pairs)))
            mean = float(np.mean(pairs))
            rows[policy] |= {"minus ew": round(mean, 2), "interval": [round(mean - half, 2), round(mean + half, 2)]}
            rows[policy] |= {"ahead": f"{sum(pair > 0 for pair in pairs)} of {len(pairs)}"}
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Trains every network with every policy and seed."""
    run: Run = command_line(words)
    results: dict[str, Any] = {} if run.smoke else run.known()
    torch.set_num_threads(1)
    for name in run.chosen([*TRAININGS], smoke=3):
        training, data = TRAININGS[name], TRAININGS[name].load()
        row = results.setdefault(name, {"steps": training.steps, "runs": {}})
        for policy in POLICIES:
            runs = row["runs"].setdefault(policy, [])
            for seed in range(len(runs), run.size(SEEDS, 2)):
                metrics = train(training, data, policy, seed, run.size(training.steps, 3))
                runs.append({task: round(value, 5) for task, value in metrics.items()})
                row["summary"] = summary(row["runs"], training.metrics)
                run.write(results)
        for policy, values in row["summary"].items():
            print(name, policy, values.get("minus ew", "-"), values.get("interval", ""), values.get("ahead", ""), flush=True)


if __name__ == "__main__":
    main()
