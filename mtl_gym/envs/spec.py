"""The specification of an environment, in the environment's own file; no other code compares ids."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymnasium.spaces import Space

from mtl_gym.decisions.base import Decision
from mtl_gym.envs.observations import OBSERVATIONS, Observation
from mtl_gym.envs.rewards import REWARDS, Reward
from mtl_gym.problems.base import Problem


@dataclass(frozen=True)
class Column:
    """A column in tables of comparisons, from :meth:`Decision.outcome` of an episode.

    Attributes:
        name: Column in frames and summaries.
        head: Its heading on pages, with the unit.
        key: Key of the outcome; ``None``: the name.
        form: Number format on pages.
        factor: Multiplier on pages.
    """

    name: str
    head: str
    key: str | None = None
    form: str = ".2f"
    factor: float = 1.0


@dataclass(frozen=True)
class PageFigure:
    """A figure on comparisons' pages.

    Attributes:
        draw: ``"module:function"`` that maps results and summary to a matplotlib figure, or to ``None`` if there is none. It
            is called twice, for wide and for narrow screens, with their width in inches as matplotlib's ``figure.figsize``. Texts
            and axes in the colours of matplotlib's settings follow the page's in the dark.
        title: Its title.
        caption: What it shows and how to read it; HTML.
    """

    draw: str
    title: str
    caption: str


@dataclass(frozen=True)
class ScheduleSearch:
    """How schedules of an environment are searched (:mod:`mtl_gym.evaluation.best_known`).

    Attributes:
        arguments: The environment's arguments: its actions, and how many decisions there are.
        anchors: Actions that rows hold to the end whatever the others do, the environment's usual start first.
        forks: At which parts of an episode rows fork; none where nothing is known before its end.
        kept: The fraction of the rows that keep their training and action.
        spread: The deviation of new actions from a parent's, in deviations of the kept ones.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    anchors: Sequence[Sequence[float]] = ()
    forks: tuple[float, ...] = (0.25, 0.5, 0.75)
    kept: float = 0.25
    spread: float = 0.7


@dataclass(frozen=True)
class EnvironmentSpec:
    """Everything that is specific to one environment.

    Attributes:
        id: Gymnasium id.
        decide: ``(arguments, num_envs, **own)``: creates the decision, with the trainings it acts on, from the common
            :class:`~mtl_gym.envs.arguments.Arguments` and the environment's own arguments, its keyword arguments.
        observations: Available observations by name.
        observe: Default observations.
        rewards: Available rewards by name.
        reward: Default reward.
        problem: Default problem.
        steps_per_action: Default optimiser steps per decision.
        excluded: Common arguments that it does not accept.
        supports: Returns why a problem is not supported; ``None`` if it is.
        unsuited: Observations that are meaningless with given own arguments.
        actions: Maps its arguments, K and, if known, the number of choices to the agents' action space; raises ``ValueError`` if
            agents do not support them. ``None``: the space of the training environment, for any K.
        lengths: Maps its arguments and K to the lengths of observations that depend on its own arguments, by rows of ``SIZES``, as
            :meth:`Decision.sizes` does for an existing decision.
        free: Own arguments that may differ between an agent's training and its use, such as prices.
        draws: ``"module:function"`` that draws a row for ``render``: ``(decision, row)`` to (height, width, 3) uint8.
        columns: Table columns from its outcomes.
        figures: Page figures from its outcomes.
        without: Names of common figures to omit; without ``curves``, none are recorded.
        sections: Additional sections of the manual, by their names in braces.
        measures: ``"module:function"``: further measurements of comparisons at an episode's end: ``(decision, references)`` to one
            mapping per row.
        search: How its schedules are searched, for what is known to be possible.
        by_hand: ``"module:Network"``: the network that people would train in its place, with their own loop and equal weights, as
            :data:`mtl_gym.evaluation.handwritten.Make`; ``mtl-gym bench`` compares the speeds. ``None``: there is none.
    """

    id: str
    decide: Callable[..., Decision]
    observations: Mapping[str, Observation] = field(default_factory=lambda: dict(OBSERVATIONS))
    observe: tuple[str, ...] = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")
    rewards: Mapping[str, Reward] = field(default_factory=lambda: dict(REWARDS))
    reward: str = "val_mean"
    problem: str = "digits"
    steps_per_action: int = 10
    excluded: tuple[str, ...] = ("main_task",)
    supports: Callable[[Problem], str | None] = lambda problem: None
    unsuited: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda own: ()
    actions: Callable[[Mapping[str, Any], int, int | None], Space[Any]] | None = None
    lengths: Callable[[Mapping[str, Any], int], Mapping[str, int]] = lambda arguments, num_tasks: {}
    free: tuple[str, ...] = ()
    draws: str = "mtl_gym.envs.rendering:draw_training"
    columns: tuple[Column, ...] = ()
    figures: tuple[PageFigure, ...] = ()
    without: tuple[str, ...] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    search: ScheduleSearch = ScheduleSearch()
    by_hand: str | None = None

    @property
    def own_arguments(self) -> dict[str, Any]:
        """The environment's own arguments with their defaults."""
        parameters = inspect.signature(self.decide).parameters.values()
        return {own.name: own.default for own in parameters if own.kind is own.KEYWORD_ONLY}
