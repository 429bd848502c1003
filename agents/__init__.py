"""Learned policies. ``PRETRAINED`` maps a name to ``"module:Class"``, like ``baselines.BASELINES``; no agent is shipped yet."""

from __future__ import annotations

PRETRAINED: dict[str, str] = {}
