"""Every benchmark runs, on tiny sizes."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from rollouts import slow_unless

import benchmarks

FOLDER = Path(benchmarks.__file__).parent
ROOT = FOLDER.parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text())
WORDS = {"gpu": ["--device", "cpu"]}
ASKED = ("workloads",)
"""Run by others: it answers requests."""
QUICK = ("clipping", "references", "merging_speed")


@pytest.mark.parametrize("name", slow_unless(QUICK.__contains__, [name for name in SCRIPTS if name not in ASKED]))
@pytest.mark.filterwarnings("ignore")  # two instances have no sensible intervals
def test_every_benchmark_runs(name, tmp_path, capsys):
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    before = {path: path.stat().st_mtime_ns for path in kept()}
    module.main(["--smoke", "--out", str(tmp_path / "results.json"), *WORDS.get(name, [])])
    assert {path: path.stat().st_mtime_ns for path in kept()} == before  # what is published stays as it is


def kept():
    folders = ("benchmarks/results", "docs", "agents/pretrained", "mtl_gym/data")
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".json", ".svg", ".safetensors", ".npz")
    ]


def test_scripts_are_modules():
    for folder in (FOLDER, ROOT / "docs"):
        for path in folder.glob("*.py"):
            assert not re.search(r"sys\.path\.\w+\(", path.read_text()), path
    for name in SCRIPTS:
        if name not in ASKED:
            text = (FOLDER / f"{name}.py").read_text()
            assert "command_line(" in text, name


def test_the_makefile_runs_what_there_is():
    named = set(re.findall(r"-m benchmarks\.(\w+)", (ROOT / "Makefile").read_text()))
    assert named <= set(SCRIPTS)


def test_a_ratio_is_the_median_of_the_rounds():
    measuring = importlib.import_module("benchmarks.measuring")
    import numpy as np

    row = measuring.ratio(np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 3.0]))
    assert row == {"ratio": 3.0, "lower quartile": 2.5, "upper quartile": 3.5, "best of each": 2.0}
    turns = []
    measuring.interleaved({name: lambda own=name: turns.append(own) or 1.0 for name in "ab"}, rounds=2)
    assert "".join(turns) == "abbaab"


def test_the_workloads_stand_alone():
    workloads = importlib.import_module("benchmarks.workloads")
    assert "benchmarks" not in {
        module.split(".")[0] for module in re.findall(r"^(?:from|import) (\S+)", inspect.getsource(workloads), re.M)
    }
