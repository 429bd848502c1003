"""Fuzzing by hand: thousands of random argument sets and policies, which have to be made or refused within a second.

    python -m benchmarks.fuzz               10,000 argument sets and 10,000 policies
    python -m benchmarks.fuzz arguments     one of them

Problems are loaded before. An attempt is a fault if it takes longer than a second of the processor (twice in a row), if it takes
more memory than the documented estimate (:mod:`mtl_gym.training.memory`), if an error is not in our form, or if what was made
fails later: a tenth of what was made also resets and steps, where an episode takes seconds at most. References of rewards are
trained when an episode begins, never when an environment is made. Writes ``benchmarks/results/fuzz.json``: counts and findings.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.measuring import Run, command_line

COUNT, SMOKE = 10_000, 20
STEPPED = 10
"""Of so many that were made, one also resets and steps."""
STORED = 500
"""Attempts between two writes of the results."""
MOST_FINDINGS = 200


class Study:
    """Attempts of one kind, counted; ``attempts`` is their number."""

    def __init__(self, step: Callable[[Any], str | None], stepped: int) -> None:
        self._step, self._stepped, self.attempts = step, stepped, 0
        self._counts: Counter[str] = Counter()
        self._slowest, self._largest, self._fullest, self._due = 0.0, 0, 0.0, 0
        self._findings: list[dict[str, str]] = []

    def add(self, given: str, attempt: Any) -> None:
        """Counts an attempt, and steps what was made if it is due."""
        self._counts[attempt.outcome] += 1
        self.attempts += 1
        self._slowest = max(self._slowest, attempt.seconds)
        self._largest = max(self._largest, attempt.peak)
        self._fullest = max(self._fullest, attempt.peak / attempt.estimate)
        if attempt.fault:
            self._find(given, attempt.fault)
        elif attempt.outcome == "made":
            self._due += 1
            if self._due >= self._stepped:
                self._take(given, attempt.made)

    def _take(self, given: str, made: Any) -> None:
        wrong = self._step(made)
        if wrong is None:
            self._counts["too large to step"] += 1  # the next one takes its place
            return
        self._due = 0
        self._counts["stepped"] += 1
        if wrong:
            self._counts["fault in a step"] += 1
            self._find(given, wrong)

    def _find(self, given: str, fault: str) -> None:
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append({"given": given, "fault": fault})
            print(given, "->", fault, flush=True)

    def result(self, seconds: float) -> dict[str, Any]:
        """The counts and findings."""
        numbers = {"slowest, s": round(self._slowest, 3), "largest peak, MB": round(self._largest / 1e6, 1)}
        fullest = {"largest peak over its estimate": round(self._fullest, 3)}
        return {
            **dict(sorted(self._counts.items())),
            **numbers,
            **fullest,
            "minutes": round(seconds / 60, 1),
            "findings": self._findings,
        }


def drawn(strategy: Any, count: int, act: Callable[[Any], None]) -> None:
    """Calls a function with so many values of a strategy, always the same ones."""
    quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

    @settings(max_examples=count, derandomize=True, phases=[Phase.generate], **quiet)
    @given(strategy)
    def each(value: Any) -> None:
        act(value)

    each()


def main(words: Sequence[str] | None = None) -> None:
    """Runs the studies."""
    from tests import attempts, fuzzing  # late: it loads everything

    run: Run = command_line(words)
    results = run.known()
    studies: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], str | None]]] = {
        "arguments": (
            fuzzing.argument_sets(),
            lambda given: attempts.attempt_env(*given),
            lambda env: attempts.step_env(env) if attempts.quick(env) else None,
        ),
        "policies": (fuzzing.policy_texts(), attempts.attempt_policy, attempts.play_policy),
    }
    attempts.warm_up()
    for name in run.chosen([*studies], smoke=len(studies)):
        strategy, attempt, step = studies[name]
        study, begun = Study(step, run.size(STEPPED, 4)), time.perf_counter()

        def store(name: str = name, study: Study = study, begun: float = begun) -> None:
            results[name] = study.result(time.perf_counter() - begun)
            print(name, {key: value for key, value in results[name].items() if key != "findings"}, flush=True)
            run.write(results)

        def act(given: Any, study: Study = study, attempt: Callable[[Any], Any] = attempt, store: Any = store) -> None:
            study.add(fuzzing.described(given), attempt(given))
            if study.attempts % STORED == 0:
                store()

        drawn(strategy, run.size(COUNT, SMOKE), act)
        store()


if __name__ == "__main__":
    main()
