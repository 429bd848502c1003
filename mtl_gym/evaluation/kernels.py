"""The kernels with which results were computed: the same training gives other numbers with others."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

_SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables of the process by which torch's libraries choose other kernels than the fastest."""
UNKNOWN = "not recorded"


def running_kernels(device: str) -> dict[str, Any]:
    """The kernels of this process, JSON-plain.

    Returns:
        ``capability`` (the instruction set that torch's own kernels use, such as ``AVX2``), ``torch`` (its version), ``threads``
        (within an operation), ``device`` (as given, with the name of a GPU), and the variables ``ATEN_CPU_CAPABILITY``,
        ``ONEDNN_MAX_CPU_ISA`` and ``MKL_ENABLE_INSTRUCTIONS`` where they are set.
    """
    gpu = f" ({torch.cuda.get_device_name(device)})" if torch.device(device).type == "cuda" else ""
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": f"{device}{gpu}",
        **{name: os.environ[name] for name in _SWITCHES if name in os.environ},
    }


def described(kernels: Mapping[str, Any]) -> str:
    """Kernels in one line; results of earlier versions have none."""
    if not kernels:
        return UNKNOWN
    threads, switches = kernels["threads"], {name: kernels[name] for name in _SWITCHES if name in kernels}
    parts = [kernels["capability"], f"torch {kernels['torch']}", f"{threads} thread{'s' * (threads != 1)}", kernels["device"]]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in switches.items())])


def counted(kernels: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The number of results by the description of their kernels, most frequent first."""
    return dict(Counter(map(described, kernels)).most_common())


def listed(counts: Mapping[str, int]) -> str:
    """The kernels of a comparison in one line; how many results have each, if there are several."""
    several = [f"{count} with {text}" for text, count in counts.items()]
    return "; ".join(several if len(counts) > 1 else counts) or UNKNOWN


def warn_of_others(path: Path, kernels: Iterable[Mapping[str, Any]], missing: int, device: str) -> None:
    """Warns if stored results have other kernels than those with which the ``missing`` ones are going to be made."""
    own = described(running_kernels(device))
    others = {text: count for text, count in counted(kernels).items() if text != own}
    if missing and others:
        stored = "; ".join(f"{count} with {text}" for text, count in others.items())
        warnings.warn(
            f"{path} holds results of other kernels ({stored}), and the {missing} that are missing are made with {own}. Some "
            f"policies' scores differ by several points between kernels, so differences between such results are not paired. "
            f"Resume with the same kernels (ATEN_CPU_CAPABILITY; with workers=1, OMP_NUM_THREADS), or compare in another "
            f"folder.",
            RuntimeWarning,
            stacklevel=4,
        )
