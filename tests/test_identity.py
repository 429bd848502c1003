"""Digests of sources: what a module does counts, how it is written does not."""

import sys

import pytest

from mtl_gym.identity import own_modules, source_digest

SOURCE = """\
RATE = 0.5


def halved(value):
    return RATE * value


class Row:
    size = 3
"""
SAME = {
    "comment": SOURCE.replace("RATE = 0.5", "RATE = 0.5  # of the paper"),
    "docstring of the module": '"""Halves."""\n\n' + SOURCE,
    "docstring of a function": SOURCE.replace("(value):", '(value):\n    """Half of it."""\n'),
    "docstring of a class": SOURCE.replace("class Row:", 'class Row:\n    """A row."""\n'),
    "text below a name": SOURCE.replace("RATE = 0.5", 'RATE = 0.5\n"""Of the paper."""'),
    "formatting": SOURCE.replace("RATE * value", "(RATE\n        *value)").replace("\n\n\n", "\n"),
}
OTHER = {
    "number": SOURCE.replace("0.5", "0.6"),
    "name": SOURCE.replace("size", "length"),
    "operator": SOURCE.replace("*", "+"),
    "text that is used": SOURCE.replace("size = 3", "size = '3'"),
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of a source."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(source):
        (tmp_path / "rows.py").write_text(source)
        source_digest.cache_clear()
        return source_digest("rows")

    yield of
    source_digest.cache_clear()
    assert "rows" not in sys.modules  # nothing is imported for it


@pytest.mark.parametrize("name", SAME)
def test_how_a_module_is_written_does_not_matter(name, digest):
    assert digest(SAME[name]) == digest(SOURCE)


@pytest.mark.parametrize("name", OTHER)
def test_what_a_module_does_matters(name, digest):
    assert digest(OTHER[name]) != digest(SOURCE)


def test_modules_without_source_are_passed_over(digest):
    digest(SOURCE)
    assert source_digest("sys", "", "nothing_of_that_name", "rows") == source_digest("rows")


def test_own_modules_are_those_that_are_imported_anywhere_and_not_installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts").mkdir()
    for file, text in {
        "whole.py": "import numpy as np\nimport mtl_gym\nfrom parts import first\nimport not_there\n",
        "parts/__init__.py": "",
        "parts/first.py": "def late():\n    import second\n    from json import loads\n",
        "second.py": "import whole\n",
        "other.py": "",
    }.items():
        (tmp_path / file).write_text(text)
    assert own_modules("whole") == ["parts", "parts.first", "second", "whole"]
    assert own_modules("json") == own_modules("numpy") == own_modules("mtl_gym.checks") == own_modules("not_there") == []
    assert not {"whole", "second", "parts.first"} & sys.modules.keys()
    sys.modules.pop("parts", None)  # which Python imports to find what is in it
