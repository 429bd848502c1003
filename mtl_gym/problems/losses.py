"""Per-task losses, each computed for many samples at once.

R is the number of samples (replicas times batch), C the output channels, T the target channels and S the spatial shape of
a dense problem (empty otherwise). A loss returns one value per target channel, or one for all channels if it is joint; the caller
averages over channels, pixels and samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mtl_gym.checks import should


@dataclass(frozen=True)
class Loss:
    """One row of ``LOSSES``. Values are at least 0, since observations and rewards use their logarithms."""

    function: Callable[[Tensor, Tensor], Tensor]  # ``(outputs (R, C, *S), targets (R, T, *S)) -> values (R, V, *S)``
    # whether there is one value for all channels of a task (V = 1, and each task is computed separately); otherwise V = T, and
    # neighbouring tasks with this loss are computed in one call
    joint: bool
    target_channels: Callable[[int], int]  # number of target channels, given the number of outputs
    # kind of labels: ``"classes"`` (indices), ``"binary"`` (0 or 1) or ``"real"``
    labels: str = "real"
    # an equivalent function for forward mode, if torch has no fast forward-mode rule for ``function``
    dual: Callable[[Tensor, Tensor], Tensor] | None = None


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy in nats; ``targets`` (R, 1, *S) are class indices."""
    return functional.cross_entropy(outputs, targets[:, 0].long(), reduction="none").unsqueeze(1)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits in nats; ``targets`` in {0, 1}."""
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")


class _Product(torch.autograd.Function):
    """Values times constants, since torch runs its own forward-mode rule in Python if one factor has no tangent."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, constants: Tensor) -> Tensor:
        ctx.save_for_backward(constants)
        ctx.save_for_forward(constants)
        return values * constants

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent * ctx.saved_tensors[0]


def times(values: Tensor, constants: Tensor) -> Tensor:
    """Values times constants that broadcast to their shape; ten times faster than ``*`` in forward mode."""
    return _Product.apply(values, constants)  # type: ignore[no-untyped-call]


def dual_binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same without torch's forward-mode rule, which runs in Python."""
    return functional.softplus(outputs) - times(outputs, targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, in the square of the target's unit."""
    return functional.mse_loss(outputs, targets, reduction="none")


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error, in the target's unit."""
    return functional.l1_loss(outputs, targets, reduction="none")


def cosine_distance(outputs: Tensor, targets: Tensor) -> Tensor:
    """One minus the cosine of the angle between two vectors of channels, in [0, 2]."""
    return 1 - functional.cosine_similarity(outputs, targets, dim=1).unsqueeze(1)


LOSSES = {
    "cross_entropy": Loss(cross_entropy, joint=True, target_channels=lambda outputs: 1, labels="classes"),
    "bce": Loss(
        binary_cross_entropy, joint=False, target_channels=lambda outputs: outputs, labels="binary", dual=dual_binary_cross_entropy
    ),
    "mse": Loss(squared_error, joint=False, target_channels=lambda outputs: outputs),
    "l1": Loss(absolute_error, joint=False, target_channels=lambda outputs: outputs),
    "cosine": Loss(cosine_distance, joint=True, target_channels=lambda outputs: outputs),
}


def by_samples(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss of a function of real labels that returns one value for each sample, or for each pixel of a dense problem."""
    return Loss(_PerSample(function), joint=True, target_channels=_as_outputs)


_CHANNELS = "Take the mean over channels: lambda outputs, targets: loss(outputs, targets).mean(1)."
AVERAGED = f'Do not average over samples: torch\'s losses take reduction="none". {_CHANNELS}'
"""What to do about a loss that returns one number for a batch."""


@dataclass(frozen=True)
class _PerSample:
    """``(outputs (R, C, *S), targets (R, T, *S)) -> values (R, 1, *S)`` from a function without the axis of channels."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        values, shape = self.function(outputs, targets), (len(outputs), *outputs.shape[2:])
        if not isinstance(values, Tensor) or tuple(values.shape) not in (shape, (shape[0], 1, *shape[1:])):
            received = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            remedy = AVERAGED if received == () else _CHANNELS if received == tuple(outputs.shape) else ""
            raise ValueError(should("loss", f"return values of the shape {shape}, one for each sample", received, remedy))
        return values.reshape(shape[0], 1, *shape[1:])


def _as_outputs(outputs: int) -> int:
    return outputs


KINDS = {"classes": "classification", "binary": "classification", "real": "regression"}
"""Kind of labels to kind of task."""


def valid_values(loss: Loss, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mask (R, V, *S) of a loss's valid values, and the targets (R, T, *S) with 0 in place of NaN, where a label is missing."""
    return _valid(targets, joint=loss.joint), torch.nan_to_num(targets)


def labelled(targets: Tensor, *, joint: bool) -> Tensor:
    """Which samples (R,) have a value, given targets (R, T, *S): with labels of all channels, at some pixel, if it is joint.

    Otherwise, a label of one channel is enough. A loss is joint or not; metrics are, since each value compares all channels.
    """
    return _valid(targets, joint=joint).flatten(1).any(1)


def _valid(targets: Tensor, *, joint: bool) -> Tensor:
    valid = ~torch.isnan(targets)
    return valid.all(1, keepdim=True) if joint else valid
