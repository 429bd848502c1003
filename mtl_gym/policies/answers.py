"""What policies answer, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.checks import should


def array_of(answer: Any) -> npt.NDArray[Any]:
    """An array of numbers from any array-like, such as a list or a tensor, with or without a gradient and on any device.

    Raises:
        TypeError: If it is not made of real numbers of one regular shape.
    """
    if hasattr(answer, "detach"):  # a tensor; asking this way does not load torch
        answer = answer.detach().cpu()
    elif isinstance(answer, (list, tuple)):
        answer = [array_of(part) if hasattr(part, "detach") else part for part in answer]
    try:
        values = np.asarray(answer)
    except ValueError:  # lists of different lengths
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise TypeError(should("actions", "be an array of numbers", answer))
    return values
