import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import mtl_gym

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
LAYERS = ("problems", "policies", "training", "envs", "evaluation", "balancer", "cli")
EVERYWHERE = ("arguments", "cache", "identity")


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
    statement = "import baselines; baselines.BASELINES"
    assert not (loaded(statement) - loaded("import gymnasium")) & {"torch", "stable_baselines3", "matplotlib", "sklearn"}


@pytest.mark.parametrize("statement", ["import agents; agents.AGENTS, agents.PRETRAINED; dir(agents)", "from agents import AGENTS"])
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


def imported(path):
    """The modules that a file imports, wherever in it; ``from a import b`` counts as a.b where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
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
    assert not {name.split(".")[0] for name in imported(path)} & {"baselines", "agents", "tests", "benchmarks"}


@pytest.mark.parametrize("path", files("baselines"))
def test_the_baselines_never_know_the_agents(path):
    assert "agents" not in {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", files("agents"))
def test_the_agents_know_neither_tests_nor_benchmarks(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"tests", "benchmarks", "docs"}


@pytest.mark.parametrize("path", files("agents"))
def test_the_agents_use_no_private_names_of_the_library(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in nodes if node.module.split(".")[0] == "mtl_gym" for alias in node.names]
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("path", files("mtl_gym"))
def test_each_layer_knows_only_those_above_it(path):
    own = path.relative_to(ROOT / "mtl_gym").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    known = {name.split(".")[1] for name in imported(path) if name.startswith("mtl_gym.")}
    if own in EVERYWHERE:
        assert known <= set(EVERYWHERE)
        return
    assert own in LAYERS, f"{own} has no place in the order"
    assert known <= {*EVERYWHERE, *LAYERS[: LAYERS.index(own) + 1]}


@pytest.mark.parametrize("path", files("mtl_gym") + files("baselines") + files("agents"))
def test_no_module_prints_or_sets_global_seeds(path):
    source = path.read_text()
    assert "torch.manual_seed(" not in source
    assert "np.random.seed(" not in source
    calls = [node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls


@pytest.mark.parametrize("name", ["problems", "training", "envs", "evaluation"])
def test_every_module_can_be_imported(name):
    for path in sorted((ROOT / "mtl_gym" / name).glob("*.py")):
        importlib.import_module(f"mtl_gym.{name}.{path.stem}" if path.stem != "__init__" else f"mtl_gym.{name}")


@pytest.mark.parametrize("path", files("agents"))
def test_every_file_of_the_agents_can_be_imported(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert module.__doc__


@pytest.mark.parametrize("name", agents.AGENTS)
def test_every_row_of_the_agents_resolves_and_says_what_it_is(name):
    module, attribute = agents.AGENTS[name].split(":")
    row = getattr(importlib.import_module(module), attribute)
    assert row.__doc__
    assert row.__doc__ != row.__mro__[1].__doc__
    for home in (row.home, row.policy):
        module, attribute = home.split(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), type)
