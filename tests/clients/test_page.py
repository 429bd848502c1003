"""The page says with which versions its recipes were run."""

import re
from pathlib import Path

from recipes import PAGE

REQUIREMENTS = Path(__file__).parent / "requirements"
CONSTRAINTS = (Path(__file__).parents[2] / "constraints.txt").read_text().lower().replace("_", "-")


def test_the_versions_on_the_page_are_those_that_are_installed():
    pinned = dict(re.findall(r"^([\w-]+)(?:\[[\w,]+\])?==(\S+)", CONSTRAINTS, flags=re.MULTILINE))
    for path in REQUIREMENTS.glob("*.txt"):
        pinned |= dict(re.findall(r"^([\w-]+)(?:\[[\w,]+\])?==(\S+)", path.read_text(), flags=re.MULTILINE))
    named = re.findall(r"([\w-]+) (\d+\.\d+\.\d+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(named) == 9
    for name, version in named:
        assert pinned[name.replace("_", "-")] == version


def test_every_client_has_a_module_and_a_recipe():
    headings = {re.sub(r"[\W_]", "", heading).lower() for heading in re.findall(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)}
    for path in REQUIREMENTS.glob("*.txt"):
        assert (REQUIREMENTS.parent / f"test_{path.stem}.py").exists()
        assert path.stem in ("wheel", "cluster") or path.stem.replace("_", "") in headings
