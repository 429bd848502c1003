"""Pages from templates, which share one style for wide and narrow screens, dark mode and print."""

from __future__ import annotations

from importlib import resources
from string import Template

from mtl_gym.envs.looks import ON_DARK
from mtl_gym.evaluation.figures import variable


def filled(name: str, **texts: object) -> str:
    """The template ``data/<name>`` with its style and these texts, which are HTML; ``run`` ends a page with what was run."""
    dark = "\n".join(f"    {variable(colour)}: {other};" for colour, other in ON_DARK.items())
    style = Template(_read("page.css")).substitute(dark=dark)
    last = Template(_read("what_was_run.html")).substitute(run=texts["run"]) if "run" in texts else ""
    return Template(_read(name)).substitute(style=style, what_was_run=last, **texts)


def _read(name: str) -> str:
    return resources.files("mtl_gym").joinpath("data").joinpath(name).read_text()
