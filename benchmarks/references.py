"""Trains the references of ``terminal_delta_m`` for default arguments and writes ``mtl_gym/data/references.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from benchmarks.measuring import ROOT, Run, command_line, weighted_problems
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems.axes import DISTRIBUTIONS
from mtl_gym.training.references import fingerprint, train_average_references

OUT = ROOT / "mtl_gym" / "data" / "references.json"


def main(words: Sequence[str] | None = None) -> None:
    """Adds what is missing, so rerunning it resumes; delete the file to retrain all of them."""
    run: Run = command_line(words, results=OUT)
    spec, short = specification(LOSS_WEIGHTING), {"train_steps": 20} if run.smoke else {}
    known, wanted = run.known(), {}
    for problem in weighted_problems(run):
        for distribution in [*DISTRIBUTIONS][: 1 if run.smoke else None]:
            arguments = check_arguments(spec, problem=problem, distribution=distribution, **short)
            key = json.dumps(fingerprint(arguments.problem, arguments.recipe), sort_keys=True)
            start = time.perf_counter()
            wanted[key] = known.get(key) or train_average_references(arguments.problem, arguments.recipe)
            print(f"{problem}, {distribution}: {time.perf_counter() - start:.0f} s", flush=True)
            run.write(wanted | known)
    run.write(wanted | known if run.names else wanted)


if __name__ == "__main__":
    main()
