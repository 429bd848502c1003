"""What other installed packages add: one that is broken is named and skipped, and nobody takes a name of ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_gym
from mtl_gym.baselines import BASELINES
from mtl_gym.environments import ENVIRONMENTS
from mtl_gym.plugins import POLICIES, entries, resolve

ROOT = Path(mtl_gym.__file__).parents[1]
ENVIRONMENT = '''
from mtl_gym.envs.scalar import MTLEnv
from mtl_gym.envs.vector import MTLVectorEnv
from mtl_gym.envs.loss_weighting import LossWeightingVectorEnv
from dataclasses import replace


class TheirVectorEnv(MTLVectorEnv):
    """N trainings."""

    specification = replace(LossWeightingVectorEnv.specification, id="third/Their-v0", problem="quadratic")


class TheirEnv(MTLEnv):
    """Their manual. {observations}"""

    vector_form = TheirVectorEnv
'''

MORE = """
import sys

THREE = 3


class Exiting:
    def __init__(self):
        sys.exit("evil")


class Failing:
    def __init__(self):
        raise KeyboardInterrupt
"""


@pytest.fixture
def package(tmp_path):
    """Makes an installed package of entry points by group, and of modules by name; returns what a fresh process prints."""

    def install(name, groups, modules=None):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in own.items()) for group, own in groups.items()]
        (folder / "entry_points.txt").write_text("\n".join(lines))
        for module, text in (modules or {}).items():
            (tmp_path / f"{module}.py").write_text(text)

    def answer(code):
        """The JSON that the code prints last, and what it wrote to stderr."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    install.answer = answer
    return install


def policies(code=""):
    return f"from mtl_gym.policies.finding import find_policies\nimport json\n{code}\nprint(json.dumps(find_policies()))"


@pytest.mark.parametrize(
    ("value", "modules", "reason"),
    [
        ("nowhere:TABLE", {}, "ModuleNotFoundError: No module named 'nowhere'"),
        pytest.param(
            "third:MISSING", {"third": ""}, "AttributeError: module 'third' has no attribute 'MISSING'", marks=pytest.mark.slow
        ),
        pytest.param(
            "third:TABLE", {"third": "raise RuntimeError('of their own')"}, "RuntimeError: of their own", marks=pytest.mark.slow
        ),
        pytest.param("third:TABLE", {"third": "this is no Python"}, "SyntaxError", marks=pytest.mark.slow),
        pytest.param("third:TABLE", {"third": "TABLE = lambda: None"}, "it is no table of names", marks=pytest.mark.slow),
        pytest.param("third:TABLE", {"third": "TABLE = {3: 'third:EW'}"}, "it is no table of names", marks=pytest.mark.slow),
        ("third:TABLE", {"third": "import sys; sys.exit('of their own')"}, "SystemExit: of their own"),
        ("third:TABLE", {"third": "raise KeyboardInterrupt('of their own')"}, "KeyboardInterrupt: of their own"),
        pytest.param("not a name at all!", {}, "AttributeError", marks=pytest.mark.slow),
        ("third:TABLE", {"third": "TABLE = {'theirs': 3}"}, "it is no table of names"),
    ],
)
def test_a_broken_table_of_policies_is_named_once_and_skipped(package, value, modules, reason):
    package("third-party", {"mtl_gym.policies": {"broken": value}}, modules)
    found, said = package.answer(policies("find_policies()"))
    assert {"ew", "slgrad"} <= set(found)
    assert "theirs" not in found
    assert said.count("RuntimeWarning") == 1
    assert f"'broken' of mtl_gym.policies, from the package 'third-party', is skipped: {reason}" in said


@pytest.mark.parametrize(
    "distribution", ["aaa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mtl-gym-extras", "zzz"))]
)
def test_names_of_our_own_policies_are_reserved(package, distribution):
    theirs = "TABLE = {'ew': 'third:EW', 'theirs': 'third:Theirs'}"
    package(distribution, {"mtl_gym.policies": {"agents": "third:TABLE", "baselines": "third:TABLE"}}, {"third": theirs})
    found, said = package.answer(policies())
    assert found["ew"] == BASELINES["ew"]
    assert found["theirs"] == "third:Theirs"
    assert not said


def test_an_environment_of_a_third_party_is_like_ours(package):
    package("third-party", {"mtl_gym.environments": {"third/Their-v0": "third:TheirEnv"}}, {"third": ENVIRONMENT})
    code = """
import json, gymnasium, mtl_gym
spec = mtl_gym.specification("third/Their-v0")
made = gymnasium.make("third/Their-v0", train_steps=20)
several = gymnasium.make_vec("third/Their-v0", num_envs=2, vectorization_mode="vector_entry_point", train_steps=20)
made.reset(seed=0), several.reset(seed=0)
ended = made.step([0, 0, 0])[2], several.step([[0, 0, 0]] * 2)[2].tolist()
print(json.dumps([spec.id, *ended, "log_loss" in made.unwrapped.__doc__]))
"""
    assert package.answer(code)[0] == ["third/Their-v0", False, [False, False], True]


@pytest.mark.parametrize("distribution", ["aaa", pytest.param("zzz", marks=pytest.mark.slow)])
def test_ids_of_our_own_environments_are_reserved(package, distribution):
    package(distribution, {"mtl_gym.environments": dict.fromkeys(ENVIRONMENTS, "third:TheirEnv")}, {"third": ENVIRONMENT})
    code = """
import json, gymnasium, mtl_gym
from mtl_gym.environments import find_environments
print(json.dumps([find_environments(), {name: gymnasium.spec(name).entry_point for name in find_environments()}]))
"""
    assert package.answer(code)[0] == [ENVIRONMENTS, ENVIRONMENTS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("third/Their-v0", "nowhere:TheirEnv", marks=pytest.mark.slow),
        pytest.param("third party, first try", "third:TheirEnv", marks=pytest.mark.slow),
        pytest.param("third/Their-v0", "third", marks=pytest.mark.slow),
        pytest.param("third/Their-v0", "not a name at all!", marks=pytest.mark.slow),
    ],
)
def test_a_broken_environment_leaves_ours_as_they_are(package, name, value):
    package("third-party", {"mtl_gym.environments": {name: value}}, {"third": ENVIRONMENT})
    code = """
import json, gymnasium, mtl_gym
env = gymnasium.make("mtl_gym/LossWeighting-v0", problem="quadratic", train_steps=20)
env.reset(seed=0)
print(json.dumps([env.step([0, 0, 0])[2], sorted(mtl_gym.environments.find_environments())]))
"""
    (terminated, known), said = package.answer(code)
    assert terminated is False
    assert set(ENVIRONMENTS) <= set(known)
    if name == "third/Their-v0" and ":" in value:
        assert name in known  # it is loaded when it is made, and then says what is wrong
    else:
        assert name not in known
        assert f"{name!r} of mtl_gym.environments, from the package 'third-party', is skipped:" in said


def test_broken_files_of_policies_are_skipped(package, tmp_path):
    package(
        "third-party",
        {"mtl_gym.policy_files": {"broken": "nowhere:load", "theirs": "third:load"}},
        {"third": "load = lambda path: [path]"},
    )
    code = f"""
import json, mtl_gym.plugins as plugins
loaders = [entry.name for entry in plugins.entries(plugins.POLICY_FILES)]
loaded = [plugins.load(entry) for entry in plugins.entries(plugins.POLICY_FILES) if entry.dist.name == "third-party"]
print(json.dumps([loaders, [own and own({str(tmp_path)!r}) for own in loaded]]))
"""
    (names, loaded), said = package.answer(code)
    assert names == ["agents", "broken", "theirs"]
    assert loaded == [None, [str(tmp_path)]]
    assert "'broken' of mtl_gym.policy_files, from the package 'third-party', is skipped: ModuleNotFoundError" in said


def test_our_own_come_first_whatever_others_are_called(package):
    package("aaa", {"mtl_gym.commands": {"train": "third:train", "also": "third:also"}})
    code = """
import json, mtl_gym.plugins as plugins
print(json.dumps([[entry.name, entry.dist.name] for entry in plugins.entries(plugins.COMMANDS)]))
"""
    assert package.answer(code)[0] == [["train", "mtl-gym"], ["also", "aaa"], ["train", "aaa"]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "AttributeError", marks=pytest.mark.slow),
        pytest.param("raise RuntimeError('of their own')", "RuntimeError: of their own", marks=pytest.mark.slow),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        pytest.param("raise KeyboardInterrupt", "KeyboardInterrupt: ", marks=pytest.mark.slow),
    ],
)
def test_a_broken_command_is_named_and_the_others_work(package, text, reason):
    package("aaa", {"mtl_gym.commands": {"broken": "third:broken"}}, {"third": text})
    package(
        "zzz", {"mtl_gym.commands": {"compare": "fourth:theirs", "more": "fourth:theirs"}}, {"fourth": "def theirs(): print(4)"}
    )
    code = """
import json, sys
from typer.testing import CliRunner
from mtl_gym.cli import full_app
app = full_app()
answers = [CliRunner().invoke(app, words) for words in (["--version"], ["more"], ["compare", "--help"], ["broken"])]
print(json.dumps([[answer.exit_code, answer.output] for answer in answers]))
"""
    (version, more, compare, broken), said = package.answer(code)
    assert version == [0, f"{mtl_gym.__version__}\n"]
    assert more == [0, "4\n"]
    assert "--policies" in compare[1]
    assert broken[0] == 2
    assert f"'broken' of mtl_gym.commands, from the package 'aaa', is skipped: {reason}" in said


def test_a_policy_of_others_that_cannot_be_loaded_is_named(package):
    table = {"theirs": "nowhere:Theirs", "leaving": "leaves:Theirs", "interrupting": "interrupts:Theirs", "number": "more:THREE"}
    table |= {"written_in_c": "builtins:dict", "exiting": "more:Exiting", "failing": "more:Failing"}
    modules = {
        "third": f"TABLE = {table}",
        "leaves": "import sys; sys.exit()",
        "interrupts": "raise KeyboardInterrupt",
        "more": MORE,
    }
    package("third-party", {"mtl_gym.policies": {"some": "third:TABLE"}}, modules)
    code = """
import json
from mtl_gym.policies.grammar import make_policy
reasons = []
for name in ("theirs", "leaving", "interrupting", "number", "written_in_c", "exiting", "failing", "ew"):
    try:
        make_policy(name)
    except ImportError as error:
        reasons.append(str(error))
print(json.dumps(reasons))
"""
    (theirs, leaving, interrupting, number, written_in_c, exiting, failing), _ = package.answer(code)
    assert theirs.startswith("'theirs' is 'nowhere:Theirs', which cannot be loaded: ModuleNotFoundError")
    assert leaving.startswith("'leaving' is 'leaves:Theirs', which cannot be loaded: SystemExit")
    assert interrupting.startswith("'interrupting' is 'interrupts:Theirs', which cannot be loaded: KeyboardInterrupt")
    assert number == "'number' is 'more:THREE', which should be a class or function. It is 3."
    assert written_in_c.startswith("'written_in_c' is 'builtins:dict', whose options are unknown")
    assert exiting == "'exiting' is 'more:Exiting', which cannot be made: SystemExit: evil"
    assert failing == "'failing' is 'more:Failing', which cannot be made: KeyboardInterrupt: "


@pytest.mark.slow
def test_what_is_no_policy_or_environment_is_listed_as_such(package):
    groups = {"mtl_gym.policies": {"some": "third:TABLE"}, "mtl_gym.environments": {"third/Int-v0": "third:THREE"}}
    groups["mtl_gym.environments"] |= {"third/Plain-v0": "third:Plain"}
    package("third-party", groups, {"third": "THREE = 3\nTABLE = {'number': 'third:THREE'}\nclass Plain: 'No environment.'"})
    code = """
import json
from mtl_gym.cli import tables
from mtl_gym.environments import specification
rows = {next(iter(row.values())): row["what"] for table in tables().values() for row in table}
try:
    specification("third/Int-v0")
except ImportError as error:
    print(json.dumps([rows[name] for name in ("number", "third/Int-v0", "third/Plain-v0")] + [str(error)]))
"""
    (number, of_int, plain, error), _ = package.answer(code)
    assert number == "cannot be loaded: ImportError: 'number' is 'third:THREE', which should be a class or function. It is 3."
    assert error == "'third/Int-v0' is 'third:THREE', which should be a class with `specification`, as mtl_gym.MTLEnv. It is 3."
    assert of_int == f"cannot be loaded: ImportError: {error}"
    assert "should be a class with `specification`" in plain


def test_ctrl_c_while_our_own_code_is_loaded_interrupts(monkeypatch):
    monkeypatch.setattr("mtl_gym.plugins.pkgutil.resolve_name", interrupt)
    with pytest.raises(KeyboardInterrupt):
        resolve("ew", BASELINES["ew"])


def interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_loader_that_fails_on_a_file_does_not_stop_the_others(package, tmp_path):
    modules = {"third": "def load(path): raise SystemExit(path)", "fourth": "def load(path): return 'loaded'"}
    package("aaa", {"mtl_gym.policy_files": {"failing": "third:load"}}, modules)
    package("zzz", {"mtl_gym.policy_files": {"working": "fourth:load"}})
    (tmp_path / "file.theirs").write_text("of their own")
    code = f"""
import json
from mtl_gym.policies.finding import policy_of_file
print(json.dumps(policy_of_file({str(tmp_path / "file.theirs")!r})))
"""
    loaded, said = package.answer(code)
    assert loaded == "loaded"
    assert "'failing' of mtl_gym.policy_files, from the package 'aaa', is skipped: SystemExit" in said


@pytest.mark.slow
def test_a_package_without_metadata_is_found_all_the_same(package, tmp_path):
    package("third-party", {"mtl_gym.policies": {"some": "third:TABLE"}}, {"third": "TABLE = {'theirs': 'third:Theirs'}"})
    (tmp_path / "third-party-1.0.dist-info" / "METADATA").unlink()
    assert "theirs" in package.answer(policies())[0]


PROBLEM = """
import numpy as np
import mtl_gym


def make(name="theirs"):
    "Two tasks of theirs: a number and its sign."
    x = np.random.default_rng(0).normal(size=(200, 3))
    return mtl_gym.Problem.from_arrays(x, {"number": x.sum(1), "sign": x[:, 0] > 0}, name=name)


def fails():
    "It fails."
    return 1 / 0


TABLE = {"their_first": "third:make", "digits": "third:fails", "their_broken": "third:fails"}
"""


@pytest.mark.slow
def test_problems_of_others_are_found_listed_and_used(package):
    groups = {"mtl_gym.problems": {"theirs": "third:make", "quadratic": "third:fails", "several": "third:TABLE"}}
    package("third-party", groups, {"third": PROBLEM})
    code = """
import json, pickle, mtl_gym
from typer.testing import CliRunner
from mtl_gym.cli import app
from mtl_gym.envs.arguments import supported_problems
from mtl_gym.problems import PROBLEMS, find_problems
problem = mtl_gym.load_problem("theirs")
listed = json.loads(CliRunner().invoke(app, ["list", "problems", "--json"]).stdout)["problems"]
env = mtl_gym.specification("mtl_gym/LossWeighting-v0")
print(json.dumps([
    [name for name in find_problems() if name not in PROBLEMS],
    [problem.name, problem.address, len(problem.identity), pickle.loads(pickle.dumps(problem)) is problem],
    mtl_gym.load_problem("quadratic").identity,
    [row for row in listed if row["name"] not in PROBLEMS],
    [name for name in supported_problems(env) if name not in PROBLEMS],
]))
"""
    (names, theirs, ours, rows, supported), said = package.answer(code)
    assert set(names) == {"theirs", "their_first", "their_broken"}
    assert theirs == ["theirs", "third:make", 3, True]
    assert ours == ["quadratic", 0]
    what = "Two tasks of theirs"
    assert {"name": "theirs", "what": what, "network": "", "needs": "package third"} in rows
    assert set(supported) == {"theirs", "their_first"}
    assert not said


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere:make", "ModuleNotFoundError: No module named 'nowhere'"),
        pytest.param("third:missing", "AttributeError", marks=pytest.mark.slow),
        pytest.param("third:number", "it is no table of names", marks=pytest.mark.slow),
        pytest.param("third", "it is no table of names", marks=pytest.mark.slow),
    ],
)
def test_broken_problems_are_named_once_and_skipped(package, value, reason):
    package("third-party", {"mtl_gym.problems": {"broken": value, "theirs": "third:make"}}, {"third": PROBLEM + "number = 3"})
    code = """
import json
from mtl_gym.problems import PROBLEMS, find_problems, load_problem
find_problems()
try:
    load_problem("broken")
except ValueError as error:
    print(json.dumps([[name for name in find_problems() if name not in PROBLEMS], str(error)]))
"""
    (names, error), said = package.answer(code)
    assert names == ["theirs"]
    assert "theirs" in error
    assert said.count("RuntimeWarning") == 1
    assert f"'broken' of mtl_gym.problems, from the package 'third-party', is skipped: {reason}" in said


def test_packages_that_come_change_and_go_in_a_running_process_are_seen(tmp_path, monkeypatch):
    def names():
        return [entry.name for entry in entries("mtl_gym.test_plugins")]

    monkeypatch.syspath_prepend(tmp_path / "first")
    assert names() == []
    folder = tmp_path / "first" / "later-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1.0\n")
    assert names() == []  # in the middle of its installation
    (folder / "entry_points.txt").write_text("[mtl_gym.test_plugins]\nfound = nowhere:it\n")
    assert names() == ["found"]
    (folder / "entry_points.txt").write_text("[mtl_gym.test_plugins]\nchanged = nowhere:it\n")
    assert names() == ["changed"]
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    shutil.copytree(folder, tmp_path / "second" / "other-1.0.dist-info")
    (tmp_path / "second" / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    monkeypatch.chdir(tmp_path)
    assert names() == ["changed"]
    monkeypatch.chdir(tmp_path / "second")
    assert names() == ["changed", "changed"]
    shutil.rmtree(folder)
    assert names() == ["changed"]
    assert entries(POLICIES) == entries(POLICIES)
    assert entries(POLICIES) is not entries(POLICIES)
