"""The heuristics of the literature as policies over observations. ``BASELINES`` is the table; a heuristic is a file and a row."""

from __future__ import annotations

BASELINES = {
    "ew": "baselines.constant:EW",
    "constant": "baselines.constant:Constant",
    "init": "baselines.init:Init",
    "si": "baselines.si:SI",
    "gls": "baselines.gls:GLS",
    "rlw": "baselines.rlw:RLW",
    "uw": "baselines.uw:UW",
    "dwa": "baselines.dwa:DWA",
    "imtl-l": "baselines.imtl_l:IMTLL",
    "igb": "baselines.igb:IGB",
}
"""Name on the command line to ``"module:Class"``."""
