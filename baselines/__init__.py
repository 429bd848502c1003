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
    "uniform": "baselines.uniform:Uniform",
    "main": "baselines.uniform:Main",
    "slgrad": "baselines.slgrad:SLGrad",
    "l2rw": "baselines.slgrad:L2RW",
    "gcs": "baselines.gcs:GCS",
    "ol-aux": "baselines.ol_aux:OLAux",
    "small-loss": "baselines.selection:SmallLoss",
    "self-paced": "baselines.selection:SelfPaced",
    "ohem": "baselines.selection:OHEM",
    "focal": "baselines.focal:Focal",
    "oracle": "baselines.oracle:Oracle",
    "separate": "baselines.branching:Separate",
    "shared": "baselines.branching:Shared",
    "branch": "baselines.branching:Branch",
    "random-merge": "baselines.random_merge:RandomMerge",
    "mtsl": "baselines.mtsl:MTSL",
    "conflict": "baselines.mtsl:Conflict",
}
"""Name on the command line to ``"module:Class"``."""
