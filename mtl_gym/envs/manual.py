"""The manual pages of the environments: tables of what can be observed and paid, from the code's."""

from __future__ import annotations

from mtl_gym.envs.observations import DEFAULTS, of_environment
from mtl_gym.envs.rewards import rewards_of
from mtl_gym.envs.sample_weights import FEATURES

_LENGTHS = {"one": "1", "task": "K", "pair": "K (K - 1) / 2", "sample": "B K", "choice": "A"}
_LENGTHS |= {"map": "7 E K", "square": "K K", "group": "(2^K - 1) K", "member": "K C"}


def manual(text: str, environment: str) -> str:
    """Fills the tables of an environment's docstring."""
    observations = ["| key | length | bounds | what |", "|---|---|---|---|"]
    for name, row in of_environment(environment).items():
        observations.append(f"| `{name}` | {_LENGTHS[row.size]} | [{row.low:g}, {row.high:g}] | {row.meaning} |")
    rewards = ["| reward | what | penalty |", "|---|---|---|"]
    rewards += [f"| `{name}` | {row.meaning} | {row.penalty:g} |" for name, row in rewards_of(environment).items()]
    features = ["| feature | what |", "|---|---|", *(f"| `{name}` | {row.meaning} |" for name, row in FEATURES.items())]
    default = [", ".join(f"`{name}`" for name in DEFAULTS[environment])]
    tables = {"observations": observations, "rewards": rewards, "features": features, "default": default}
    for name, lines in tables.items():
        text = text.replace(f"{{{name}}}", "\n    ".join(lines))
    return text
