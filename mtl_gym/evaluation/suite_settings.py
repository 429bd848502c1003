"""Whether results that name a suite are of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_gym.checks import should
from mtl_gym.environments import specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.evaluation.plans import setting_of
from mtl_gym.evaluation.results import plain
from mtl_gym.evaluation.suites import load_suite
from mtl_gym.problems.base import Problem


def check_setting(setting: Mapping[str, Any], origin: Mapping[str, Any]) -> Problem:
    """The problem of a study of an installed suite; raises ValueError if this setting is not the suite's own."""
    named = origin["suite"]
    suite = load_suite(named["name"], setting["env"])
    study = {own.name: own for own in suite.studies}.get(named["study"])
    if suite.version != named["version"] or study is None:
        raise ValueError(should("source", f"be of studies of {suite.title}, which is installed", named))
    given = {"problem": study.problem, **plain(study.arguments)}
    arguments = check_arguments(specification(suite.env), **given)
    own = setting_of(suite.env, arguments, given)
    if differing := [name for name in ("identity", "arguments") if plain(own[name]) != plain(setting.get(name))]:
        condition = f"have the settings of {suite.title}; {study.name} differs in {', '.join(differing)}"
        raise ValueError(should("source", condition, setting.get(differing[0])))
    return arguments.problem
