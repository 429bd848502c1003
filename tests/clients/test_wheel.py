"""What a person installs: the wheel in an environment without extras; the README's lines, from folders that are not ours."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_gym

GIVEN = Path(__file__).parent / "readme"
README = (Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line.replace("\\\n", "") for line in re.findall(r"^mtl-gym (?:.*\\\n)*.*$", README, flags=re.MULTILINE)]
SHORTER = {
    r"problem=problem\)": "problem=problem, instances=2)",
    r'problem, "cagrad"\)': 'problem, "cagrad", train_steps=40)',
    r"instances=\d+": "instances=2, train_steps=40",
    r"--instances \d+": "--instances 2",
    r"--set lr=0.002 --set train_steps=\d+": "--set lr=0.002 --set train_steps=100",
    r"--time-steps \d+": "--time-steps 128 --num-envs 4 --instances 2 --evaluations 1",
}


def shorter(text):
    for pattern, replacement in SHORTER.items():
        text = re.sub(pattern, replacement, text)
    text = text.partition("  # ")[0].rstrip()
    whole = text.startswith("mtl-gym compare") and "--instances" not in text and "--suite" not in text
    return f"{text} --instances 2" if whole else text


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """One cache for all folders, so that references are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_GYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=["empty", "own packages"])
def folder(request, tmp_path):
    """A person's folder: empty, or with packages that are called as ours are."""
    if request.param == "own packages":
        for name in ("agents", "baselines"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise ImportError('a package of the same name')\n")
    return tmp_path


def answer(*words, cwd):
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)


def test_it_is_the_wheel_that_is_tested():
    assert "site-packages" in mtl_gym.__file__


def test_no_extra_is_installed():
    for name in ("river", "mlxtend", "skimage", "torchjd", "optuna", "ray", "minari"):
        with pytest.raises(ImportError):
            __import__(name)


def test_the_readme_has_lines_to_run():
    assert PYTHON
    assert len(COMMANDS) >= 6
    assert {line.split()[1] for line in COMMANDS} == {"check", "compare", "fit", "train"}


@pytest.mark.parametrize("block", PYTHON)
def test_lines_of_python_run(block, folder):
    code = f"{(GIVEN / 'names.py').read_text()}\n{shorter(block)}"
    ran = answer(sys.executable, "-W", "error", "-c", code, cwd=folder)
    assert ran.returncode == 0, ran.stderr


def test_commands_run_in_order(folder):
    program = Path(sys.executable).with_name("mtl-gym")
    for name in ("shop.py", "mine.py"):
        shutil.copy(GIVEN / name, folder)
    for line in COMMANDS:
        ran = answer(program, *shlex.split(shorter(line))[1:], cwd=folder)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
    assert list(folder.glob("*/report.html"))


def test_the_other_ways_to_call_it(folder):
    for words in (["--version"], ["list", "environments"], ["list", "policies"]):
        assert answer(sys.executable, "-m", "mtl_gym", *words, cwd=folder).returncode == 0
    lines = "import gymnasium, mtl_gym; from mtl_gym import agents, baselines; agents.PRETRAINED; baselines.BASELINES"
    assert answer(sys.executable, "-c", lines, cwd=folder).returncode == 0
