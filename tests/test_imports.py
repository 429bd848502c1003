import ast
import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mtl_gym
from mtl_gym import agents, cli
from mtl_gym.agents.defaults import DEFAULTS

ROOT = Path(mtl_gym.__file__).parents[1]
HEAVY = (
    "torch",
    "stable_baselines3",
    "sb3_contrib",
    "matplotlib",
    "sklearn",
    "pandas",
    "scipy",
    "rich",
    "mlxtend",
    "skimage",
    "river",
)
LAYERS = ("problems", "policies", "models", "training", "decisions", "envs", "evaluation", "balancing", "plots", "cli", "__main__")
EVERYWHERE = (
    "addresses",
    "checks",
    "cache",
    "context",
    "function_memory",
    "identity",
    "environments",
    "plugins",
    "progress",
    "randomness",
)
PARTS = ("mtl_gym.agents", "mtl_gym.baselines")
"""Links to folders at the top: parts of what is installed that the library itself does not know."""


@functools.cache
def loaded(statement):
    """The top-level packages that a fresh process has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize(
    "statement",
    ["import mtl_gym", "import mtl_gym.problems; mtl_gym.problems.PROBLEMS", "import mtl_gym; mtl_gym.PROBLEMS; dir(mtl_gym)"],
)
def test_importing_loads_nothing_heavy_beyond_gymnasium(statement):
    assert not (loaded(statement) - loaded("import gymnasium")) & set(HEAVY)


def test_importing_the_baselines_loads_nothing_heavy():
    statement = "from mtl_gym import baselines; baselines.BASELINES"
    assert not (loaded(statement) - loaded("import gymnasium")) & {"torch", "stable_baselines3", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    "statement", ["from mtl_gym import agents; agents.AGENTS, agents.PRETRAINED; dir(agents)", "from mtl_gym.agents import AGENTS"]
)
def test_importing_the_agents_loads_nothing_heavy(statement):
    assert not (loaded(statement) - loaded("import gymnasium")) & set(HEAVY)


@pytest.mark.parametrize("name", agents.__all__)
def test_every_public_name_of_the_agents_is_there(name):
    assert getattr(agents, name) is not None
    assert name in dir(agents)


def test_an_unknown_name_of_the_agents_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        agents.nothing  # noqa: B018


@pytest.mark.parametrize("name", mtl_gym.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mtl_gym, name) is not None
    assert name in dir(mtl_gym)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mtl_gym.nothing  # noqa: B018


def nodes_of(path, types=True):
    """The syntax of a file; without ``types`` what is imported for the type checker alone is left out."""
    left = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        yield node
        typed = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        left += node.orelse if typed and not types else ast.iter_child_nodes(node)


def imported(path, types=True):
    """The modules that a file imports, wherever in it; ``from a import b`` counts as a.b where that is a module."""
    for node in nodes_of(path, types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                own = ROOT.joinpath(*node.module.split("."), alias.name)
                yield f"{node.module}.{alias.name}" if own.is_dir() or own.with_suffix(".py").is_file() else node.module


def files(package):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", files("mtl_gym"))
def test_the_library_knows_neither_baselines_nor_agents(path):
    assert not {name for name in imported(path) if name.startswith(PARTS)}
    assert not {name.split(".")[0] for name in imported(path)} & {"tests", "benchmarks", "docs"}


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_are_links_that_git_keeps(part):
    link = ROOT.joinpath(*part.split("."))
    assert link.is_symlink()
    assert link.readlink() == Path("..", link.name)
    assert (link / "__init__.py").samefile(ROOT / link.name / "__init__.py")


def tracked():
    """All Python files of the repository."""
    folders = ("mtl_gym", "agents", "baselines", "tests", "benchmarks", "docs")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.slow  # reads every file
def test_nothing_imports_what_others_may_have_under_the_same_name():
    found = {path: {name.split(".")[0] for name in imported(path)} & {"agents", "baselines"} for path in tracked()}
    assert len(found) > 200
    assert not {str(path): names for path, names in found.items() if names}


@pytest.mark.slow  # reads every file
def test_no_text_names_a_class_of_a_package_that_others_may_have():
    named = re.compile(r"(?<![\w./])(agents|baselines)(\.\w+)*:[A-Za-z_]\w*$")
    for path in tracked():
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not [text for text in texts if isinstance(text, str) and named.match(text)], path


def test_the_types_of_all_parts_are_checked():
    modulefinder = pytest.importorskip("mypy.modulefinder")
    from mypy.fscache import FileSystemCache
    from mypy.options import Options

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    options = Options()
    paths = modulefinder.SearchPaths((str(ROOT),), (), (), ())
    cache = modulefinder.FindModuleCache(paths, FileSystemCache(), options)
    found = {source.path for name in settings["packages"] for source in cache.find_modules_recursive(name)}
    found = {path for path in found if path.endswith(".py")}  # folders of data count as namespaces
    checked = {Path(path).resolve() for path in found}
    assert len(checked) == len(found)  # none of them twice
    assert checked == {path for folder in ("mtl_gym", "agents", "baselines") for path in (ROOT / folder).resolve().rglob("*.py")}


OWN = """
import json, sys
import mtl_gym
frame = mtl_gym.compare("ew,ppo", problem="quadratic", instances=1, train_steps=40)
import agents, baselines
print(json.dumps([sorted(frame["policy"].unique()), agents.OWN, baselines.OWN]))
"""


@pytest.mark.slow
def test_packages_of_ones_own_do_not_stand_in_the_way(tmp_path):
    for name in ("agents", "baselines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWN = True\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == [["ew", "ppo"], True, True]


@pytest.mark.parametrize("path", files("baselines"))
def test_the_baselines_never_know_the_agents(path):
    assert not {name for name in imported(path) if name.startswith("mtl_gym.agents")}


@pytest.mark.parametrize("path", files("agents"))
def test_the_agents_know_neither_tests_nor_benchmarks(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"tests", "benchmarks", "docs"}


@pytest.mark.parametrize("path", files("agents") + files("baselines"))
def test_agents_and_baselines_use_what_anybody_may(path):
    public = {"mtl_gym": {*mtl_gym.__all__, "__version__", "agents"}, "mtl_gym.cli": set(cli.__all__)}
    own = f"mtl_gym.{path.relative_to(ROOT).parts[0]}."
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            assert "mtl_gym" not in {alias.name.split(".")[0] for alias in node.names if alias.name != "mtl_gym"}
        elif (
            isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("mtl_gym.") and not f"{node.module}.".startswith(own)
        ):
            assert {alias.name for alias in node.names} <= public.get(node.module, set()), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mtl_gym":
            assert node.attr in public["mtl_gym"], ast.unparse(node)


@pytest.mark.parametrize("path", files("mtl_gym"))
def test_each_layer_knows_only_those_above_it(path):
    own = path.relative_to(ROOT / "mtl_gym").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    known = {name.split(".")[1] for name in imported(path, types=False) if name.startswith("mtl_gym.")}
    if own in EVERYWHERE:
        assert known <= set(EVERYWHERE)
        return
    assert own in LAYERS, f"{own} has no place in the order"
    assert known <= {*EVERYWHERE, *LAYERS[: LAYERS.index(own) + 1]}


def name_of(path):
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "mtl_gym" else ("mtl_gym", *parts)).removesuffix(".__init__")


def test_no_module_imports_itself_on_the_way():
    folders = ("mtl_gym", "agents", "baselines")
    graph = {name_of(path): set(imported(path, types=False)) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert len(graph) > 150
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the modules


@pytest.mark.parametrize("path", files("mtl_gym") + files("baselines") + files("agents"))
def test_no_module_prints_or_sets_global_seeds(path):
    source = path.read_text()
    assert "torch.manual_seed(" not in source
    assert "np.random.seed(" not in source
    calls = [node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls


@pytest.mark.parametrize("name", LAYERS[:-2])
def test_every_module_can_be_imported(name):
    home = ROOT / "mtl_gym" / name
    for path in sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]:
        assert importlib.import_module(name_of(path)).__doc__


@pytest.mark.parametrize("path", files("agents"))
def test_every_file_of_the_agents_can_be_imported(path):
    assert importlib.import_module(name_of(path)).__doc__


@pytest.mark.parametrize("name", agents.AGENTS)
def test_every_row_of_the_agents_resolves_and_says_what_it_is(name):
    module, attribute = agents.AGENTS[name].split(":")
    row = getattr(importlib.import_module(module), attribute)
    assert row.__doc__
    assert row.__doc__ != row.__mro__[1].__doc__
    for home in (row.home, *(own.policies[row.home] for own in DEFAULTS.values() if row.home in own.policies)):
        module, attribute = home.split(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), type)
