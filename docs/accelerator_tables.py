"""The tables of ``docs/accelerators.md``, from what ``benchmarks/gpu.py`` last measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu.json"
MERGING = "ms of the one that merges a stage"
Table = list[dict[str, str]]


def accelerator_tables() -> dict[str, Table]:
    """All tables by the names of their markers."""
    found = json.loads(RESULTS.read_text())
    return {
        "accelerator": about(found),
        "dense": trainings(found["digits"]),
        "convolutions": trainings(found["convolutions"]),
        "decisions": decisions(found["samples"] + found["layers"]),
    }


def about(found: dict[str, Any]) -> Table:
    """The device, the software, and the limits measured on it."""
    limits = found["limits"]
    facts = {
        "device": found["device"],
        "torch": found["torch"],
        "float32 matmul precision": found["float32 matmul precision"],
        "bandwidth of a large copy": f"{limits['bytes a second'] / 1e12:.2f} TB/s",
        "rate of a large float32 matrix product": f"{limits['operations a second'] / 1e12:.1f} TFLOP/s",
    }
    return [{"fact": name, "value": value} for name, value in facts.items()]


def trainings(rows: list[dict[str, Any]]) -> Table:
    """A row for each number of trainings."""
    return [
        {
            "N": f"{row['N']:,}",
            "environment, ms per step": f"{row['environment, ms a training step']:.1f}",
            "trainer, ms per step": f"{row['trainer, ms a training step']:.1f}",
            "environment, training steps per second": f"{row['environment, training steps a second']:,.0f}",
            "trainer, training steps per second": f"{row['trainer, training steps a second']:,.0f}",
            "floor / trainer": f"{100 * row['floor / trainer']:.2g}%",
        }
        for row in rows
    ]


def decisions(rows: list[dict[str, Any]]) -> Table:
    """A row for each environment and number of trainings."""
    return [
        {
            "environment": f"`{row['what'].split(',')[0]}`",
            "N": f"{row['N']:,}",
            "ms per decision": f"{row['ms']:.0f}",
            "ms of a decision that merges a stage": f"{row[MERGING]:.0f}" if MERGING in row else "",
        }
        for row in rows
    ]
