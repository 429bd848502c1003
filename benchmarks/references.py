"""Trains the references of ``terminal_delta_m`` for default arguments and writes ``mtl_gym/data/references.json``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import PROBLEMS, TASK_GROUPING
from mtl_gym.problems.instances import DISTRIBUTIONS
from mtl_gym.training.references import fingerprint, train_average_references

OUT = Path(__file__).parents[1] / "mtl_gym" / "data" / "references.json"


def main() -> None:
    """Adds what is missing, so that the program can be interrupted; delete the file to train all anew."""
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    wanted = {}
    for problem, row in PROBLEMS.items():
        if row.environments == (TASK_GROUPING,):
            continue  # its rewards are over all tasks together
        for distribution in DISTRIBUTIONS:
            arguments = check_arguments(row.environments[0], problem=problem, distribution=distribution)
            key = json.dumps(fingerprint(arguments.problem, arguments.recipe), sort_keys=True)
            start = time.perf_counter()
            wanted[key] = known.get(key) or train_average_references(arguments.problem, arguments.recipe)
            print(f"{problem}, {distribution}: {time.perf_counter() - start:.0f} s", flush=True)
            OUT.write_text(json.dumps(wanted | known, indent=1) + "\n")
    OUT.write_text(json.dumps(wanted, indent=1) + "\n")


if __name__ == "__main__":
    main()
