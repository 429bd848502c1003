"""One name, one look: colours, dashes and markers of tasks and policies, the same on every image and page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

INK, RULE, FAINT = "#1c1c1c", "#8a8a8a", "#e4e4e4"
"""Colours of texts, of axes and reference lines, and of grids."""
BETTER, WORSE = "#0072B2", "#D55E00"
"""Colours of values above and below a neutral one."""
TASK_COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDAA33", "#AA4499", "#6FB7E0", "#117733", "#882255", "#777777")
"""Tol's muted colour-blind-safe scheme, with the pale yellow darkened to be visible on white."""
POLICY_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),  # Okabe and Ito's colour-blind-safe palette
    *("#7A5CC0", "#8C6D31", "#808080", "#C2274F", "#8DA600"),
)
"""Eleven, of which the policies of an environment with as many have one each; markers and dashes tell the others apart."""
ON_DARK = {INK: "#e8e8e8", RULE: "#8f8f8f", FAINT: "#34373c", "#332288": "#9F93F5", "#117733": "#9BCF53", "#882255": "#F08CBB"}
"""What replaces the colours that are too dark, or too light, on a dark page."""
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def places(
    names: Iterable[str], size: int, *, rounds: int = 1, known: Mapping[str, int] | None = None, colours: int = 0
) -> dict[str, int]:
    """A different number below ``size * rounds`` for each name, as long as there are enough.

    A name keeps its ``known`` number, or else has one below ``size`` that follows from the name alone. Only if another one of the
    names has that number already does it take the next free one, first among those below ``size``. Of ``colours``, so many numbers
    in a row have one each: a name then takes the next number of a colour that no other one has, as long as there is one.
    """
    known = known or {}
    taken: set[int] = set()
    found = {}
    for name in sorted(dict.fromkeys(names), key=lambda name: (name not in known, name)):
        checksum = hashlib.sha256(name.encode(errors="backslashreplace")).digest()
        first = known.get(name, int.from_bytes(checksum[:8], "big") % size)
        candidates = ((first + step) % size + size * round for round in range(rounds) for step in range(size))
        free = [place for place in candidates if place not in taken]
        used = {place % colours for place in taken} if colours else set()
        apart = [place for place in free if colours and place % colours not in used]
        found[name] = first if name in known else next(iter(apart or free), first)
        taken.add(found[name])
    return found


def task_looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The colour and dashes of each task's line, whatever the tasks' order; up to 36 tasks differ, up to 9 in their colours."""
    colours = len(TASK_COLOURS)
    return {
        name: {"color": TASK_COLOURS[place % colours], "linestyle": LINE_STYLES[place // colours % len(LINE_STYLES)]}
        for name, place in places(names, colours, rounds=len(LINE_STYLES)).items()
    }


def policy_looks(names: Iterable[str], known: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The colour, marker and dashes of each policy; policies with a ``known`` number always have the look of that number.

    Others have a colour that no other one has, as long as there is one.
    """
    colours, markers, dashes = len(POLICY_COLOURS), len(MARKERS), len(LINE_STYLES)
    looks = {}
    for name, place in places(names, colours * markers * dashes, known=known, colours=colours).items():
        shape, colour = divmod(place, colours)  # the next shape of a colour whenever all colours are used up
        looks[name] = {
            "color": POLICY_COLOURS[colour],
            # Neighbours differ in all three; 7 markers and 4 dashes have no common divisor, so no pair repeats before all are used.
            "marker": MARKERS[(shape + colour) % markers],
            "linestyle": LINE_STYLES[(shape + colour) % dashes],
        }
    return looks
