"""The figures of suites: a table."""

from __future__ import annotations

from mtl_gym.envs.spec import PageFigure

SUITE_FIGURES = {
    "standings": PageFigure(
        "mtl_gym.evaluation.suite_plots:standings",
        "Leaderboard",
        "Mean over studies (marker) with its 95 % interval (bar), and the mean difference from the baseline on the same instances. "
        "A thin line is the interval if data sets are redrawn too.",
    ),
    "profiles": PageFigure(
        "mtl_gym.evaluation.suite_plots:profiles",
        "Performance profiles",
        "The fraction of instances, studies alike, on which a policy reaches at least the score, or the difference from the "
        "baseline, on the x axis: higher is better. Where a line of differences crosses 0, it is about the probability of "
        "improvement. Bands are pointwise 95 % intervals (stratified bootstrap).",
    ),
    "shift": PageFigure(
        "mtl_gym.evaluation.suite_plots:shift",
        "Along the axis",
        "Mean difference from the baseline on each study, with its 95 % interval (Student's t). Lines join the values of an axis.",
    ),
    "studies": PageFigure(
        "mtl_gym.evaluation.suite_plots:studies",
        "Each study",
        "Mean difference from the baseline in points of delta_m; blue is better, orange is worse.",
    ),
    "cost": PageFigure(
        "mtl_gym.evaluation.suite_plots:cost",
        "Cost and quality",
        "Forward and backward passes over those of the baseline (the largest ratio of any study) and delta_m with its 95 % "
        "interval; policies with as many passes stand side by side. No policy is both cheaper and better than those on the line, "
        "which are named.",
    ),
    "curves": PageFigure(
        "mtl_gym.evaluation.suite_plots:curves",
        "Learning curves",
        "Held-out loss (the reward split) divided by its value before training: geometric mean over tasks of medians over "
        "instances.",
    ),
}
"""The figures of suites by name, in the order of the page."""
