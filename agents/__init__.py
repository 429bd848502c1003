"""Learned policies. ``PRETRAINED`` maps a name to ``"module:Class"``, like ``baselines.BASELINES``.

The table holds the policies of this package that can be named in a comparison: agents that are shipped trained, of which there is
none yet, and ``igbv2``, which is not trained before but learns while it runs.
"""

from __future__ import annotations

PRETRAINED: dict[str, str] = {"igbv2": "agents.igbv2:IGBv2"}
