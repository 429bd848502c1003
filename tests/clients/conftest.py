"""Other people's libraries, used as `docs/clients.md` says; each module is collected where its library is installed.

`make test` runs those of libraries that this package needs anyway; `make clients` makes an environment for each of the others,
and `make wheel` one for what a person installs.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

import mtl_gym

FOLDER = Path(__file__).parent
NEEDS = {
    "cluster": "ray",
    "d3rlpy": "minari",
    "examples": "lightning",
    "minari": "minari",
    "rl_zoo3": "rl_zoo3",
    "rllib": "ray",
    "tianshou": "tianshou",
    "torchrl": "torchrl",
}
collect_ignore = [f"test_{name}.py" for name, module in NEEDS.items() if find_spec(module) is None]
if "D3RLPY" not in os.environ:  # the Python of d3rlpy's environment
    collect_ignore.append("test_d3rlpy.py")
if Path(mtl_gym.__file__).parents[1] == FOLDER.parents[1]:  # these files, not what is installed
    collect_ignore.append("test_wheel.py")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test has an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
