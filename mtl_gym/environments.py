"""The environments by id. They are named by strings, so that this module loads neither torch nor the environments.

It is all that ``import mtl_gym`` loads, so what only its functions need is imported there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.envs.registration import parse_env_id

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mtl_gym.envs.spec import EnvironmentSpec

LOSS_WEIGHTING = "mtl_gym/LossWeighting-v0"
SAMPLE_WEIGHTING = "mtl_gym/SampleWeighting-v0"
LAYER_MERGING = "mtl_gym/LayerMerging-v0"
TASK_GROUPING = "mtl_gym/TaskGrouping-v0"

ENVIRONMENTS = {
    LOSS_WEIGHTING: "mtl_gym.envs.loss_weighting:LossWeightingEnv",
    SAMPLE_WEIGHTING: "mtl_gym.envs.sample_weighting:SampleWeightingEnv",
    LAYER_MERGING: "mtl_gym.envs.layer_merging:LayerMergingEnv",
    TASK_GROUPING: "mtl_gym.envs.task_grouping:TaskGroupingEnv",
}
"""Maps ids to the scalar form, ``"module:NameEnv"``; ``NameVectorEnv`` in the same module is the vector form."""

SCRIPTED: dict[str, str] = {}
"""The same of environments that this process has defined, such as a script's own, which no entry point names."""


def find_environments() -> dict[str, str]:
    """Maps ids to ``"module:NameEnv"``: ours, and those of other packages with the entry point ``mtl_gym.environments``."""
    from mtl_gym.plugins import ENVIRONMENTS as GROUP, entries

    others = {entry.name: entry.value for entry in reversed(entries(GROUP)) if entry.name not in ENVIRONMENTS and _sound(entry)}
    return ENVIRONMENTS | others


def _sound(entry: EntryPoint) -> bool:
    """Whether an entry point has a valid Gymnasium id and names a class; warns if not."""
    from mtl_gym.plugins import skip

    try:
        parse_env_id(entry.name)
        named = bool(entry.attr)
    except (gymnasium.error.Error, AttributeError) as error:  # the latter if it is no name of an object at all
        skip(entry, str(error))
        return False
    if not named:
        skip(entry, "it names no class: 'module:NameEnv'")
    return named


def vector_home(home: str) -> str:
    """``"module:NameVectorEnv"`` from the scalar form's ``"module:NameEnv"``."""
    return f"{home.removesuffix('Env')}VectorEnv"


def environment_class(id: str) -> Any:
    """The class of the scalar form, also of an environment that a script or a notebook has defined.

    Raises:
        ValueError: If the id is unknown; the known ones are listed.
        ImportError: If another package's class cannot be loaded, or is no class with ``specification``.
    """
    from mtl_gym.checks import choose, shown
    from mtl_gym.plugins import resolve

    home = choose("env", id, SCRIPTED | find_environments())
    found = resolve(id, home)
    if not isinstance(found, type) or not hasattr(found, "specification"):
        raise ImportError(
            f"{id!r} is {home!r}, which should be a class with `specification`, as mtl_gym.MTLEnv. It is {shown(found)}."
        )
    return found


def specification(id: str) -> EnvironmentSpec:
    """The specification of an environment; raises as :func:`environment_class` does."""
    found: EnvironmentSpec = environment_class(id).specification
    return found
