"""How policies do on problems that they have never seen: four folds of problems that are left out, and left-out teachers.

    python -m benchmarks.logged                     first: what the bandits learn from
    python -m benchmarks.transfer digits            trains the agents of a fold, and plays them on what is left out (resumes)
    python -m benchmarks.transfer heuristics        searches the heuristics on left-out teachers, and plays them
    python -m benchmarks.transfer choose            what agents of teachers alone are worth on new teachers (minutes)
    python -m benchmarks.transfer ship              installs the agent of teachers alone in agents/pretrained (a minute)
    python -m benchmarks.transfer                   all of it (hours)

What learns in a fold (``RECIPES``; three seeds) never sees the fold's problems (``benchmarks/folds.py``), nor the
instances of teachers on which it is judged; of these there are as many problems as instances. All is compared twice:

- *as it is*: at the problem's own learning rate, with default options, which is what a choice before the problem is seen gets;
- *searched*: with the rate, and of heuristics the option, that other instances of the same problem prefer. Those of the shipped
  problems are in ``benchmarks/results/methods.json``, of the same 30 instances.

Writes ``benchmarks/results/transfer.json``, from which ``docs/generate.py`` makes the tables of ``docs/transfer.md``. Agents are
kept in ``runs/transfer``.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import isnan
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import bandit, evolution, policy_gradient
from benchmarks.bandit import PLAIN, finals, learned, scaled
from benchmarks.folds import FOLDS, TEACHERS_ALONE, sources_of_fold, training_sources
from benchmarks.logged import CHUNKS, FIRST, SMOKE as SMALL, chunk_file, collect, drawn_settings
from benchmarks.measuring import FAMILY_CASES, ROOT, Run, command_line, searched_in
from benchmarks.methods import INSTANCES, SINGLE_TASK, found_settings, of_policy, played, policies, rescored, single_task
from benchmarks.search import Scores, search
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.policies.grammar import make_policy

HEURISTICS, BLIND, CHOOSE, SHIP = "heuristics", "blind", "choose", "ship"
FAMILY_INSTANCES = 48
SHIPPED = "bandit-run"
SEEDS = {SHIPPED: 5}
USUAL_SEEDS = 3
CHEAP = ("ew", "init", "si", "si-mean", "gls", "rlw", "dwa", "uw", "uw-so", "imtl-l", "igb", "cov", "stch", "famo", "ppo")
DEAR = ("cagrad", "fairgrad", "nash-mtl", "db-mtl", "moco", "si+cagrad", "igb+cagrad")
"""Policies that cost what equal weights do, and K backward passes a step: both are also played as they are, without a search."""
FIRST_DRAW, DRAWS = 90_000, 3
DRAWN = range(FIRST + 3 * 10**6, FIRST + 3 * 10**6 + 8)
"""Draws of settings of teachers by which the recipe is chosen, and instances of each."""
AGENTS = ROOT / "runs" / "transfer"
RULES = {"level": "rule:first=1:base=1:level=1", "best-rule": "best-rule:level=0.482"}
"""One over the mean loss of the second epoch, with a level of 1, and what a search on teachers alone made of that.

They see no shipped problem. The option tells `best-rule` apart from the row of that name in searches.
"""
LONG = 32
"""Updates of PPO from as many trainings as bandits learn from, 9,216."""
Recipe = Callable[[Sequence[Mapping[str, Any]], int, Path], Any]
"""``(sources, seed, file)``: trains an agent on sources and saves it."""


RECIPES: dict[str, Recipe] = {
    "bandit": lambda sources, seed, file: learned(sources, seed).save(file),
    "bandit-free": lambda sources, seed, file: learned(sources, seed, features=PLAIN, inputs="no held-out losses").save(file),
    "bandit-run": lambda sources, seed, file: learned(sources, seed, features=PLAIN, inputs="run").save(file),
    "learned-rule": lambda sources, seed, file: learned(sources, seed, features=PLAIN, inputs="nothing").save(file),
    "evolved": lambda sources, seed, file: evolution.evolved(sources, evolution.found(TEACHERS_ALONE, seed), seed).save(file),
    "ppo-rule": lambda sources, seed, file: policy_gradient.learned(sources, seed, **policy_gradient.best()).save(file),
    "ppo-rule-long": lambda sources, seed, file: policy_gradient.learned(
        sources, seed, updates=LONG, **policy_gradient.best()
    ).save(file),
}
"""What learns, by name. ``learned-rule`` is constant: what a bandit is that observes nothing."""
SMOKE = "smoke"
RECIPES[SMOKE] = lambda sources, seed, file: learned(sources, seed, steps=2, folder=file.parent).save(file)
USUAL = ("bandit", "bandit-free", "bandit-run", "learned-rule")
ABLATED = ("evolved", "ppo-rule", "ppo-rule-long")
"""The recipes of every fold; those of teachers alone."""
SEARCHES = {"evolved": evolution.FOUND, "ppo-rule": policy_gradient.FOUND, "ppo-rule-long": policy_gradient.FOUND}
"""The results from which recipes are made that were searched for."""


def agents(fold: str, folder: Path) -> dict[str, list[str]]:
    """The files of the seeds of each recipe of a fold, which may have to be trained, and the rules."""
    recipes = (SMOKE,) if fold == SMOKE else (*USUAL, *(ABLATED if fold == TEACHERS_ALONE else ()))
    sources = _sources(fold)
    if fold == SMOKE:
        collect(sources, 1, folder / fold, **SMALL)
    else:
        _check_complete(sources)
    files = {}
    for name in recipes:
        version = _version(name, sources)
        seeds = range(SEEDS.get(name, USUAL_SEEDS))
        files[name] = [str(folder / fold / f"{name}-{seed}-{version}.safetensors") for seed in seeds]
    return files | {name: [rule] for name, rule in RULES.items() if fold in FOLDS}


def alone() -> dict[str, str]:
    """The agents of the shipped recipe that learned on teachers alone, by name, trained where they are missing."""
    files = agents(TEACHERS_ALONE, AGENTS)[SHIPPED]
    _train(TEACHERS_ALONE, {SHIPPED: files})
    return {f"{SHIPPED}-{seed}": file for seed, file in enumerate(files)}


def _train(fold: str, files: Mapping[str, Sequence[str]]) -> None:
    """Trains the agents of a fold that have no file yet."""
    for name, own in files.items():
        for seed, file in enumerate(map(Path, own)):
            if name in RECIPES and not file.is_file():
                RECIPES[name](_sources(fold), seed, file)
                print(fold, file.stem, flush=True)


def _version(recipe: str, sources: Sequence[Mapping[str, Any]]) -> str:
    """What tells agents apart that learned with other constants, from other logged sets, or after another search."""
    if recipe in SEARCHES:
        return sha256(SEARCHES[recipe].read_bytes()).hexdigest()[:8]
    told = {name: repr(own) for name, own in vars(bandit).items() if name.isupper() and name not in ("FOLDER", "PARTS", "SMOKE")}
    chunks = [file for source in sources for file in sorted(chunk_file(source, 0).parent.glob("*.npz"))]
    digests = [sha256(file.read_bytes()).hexdigest() for file in chunks]
    return sha256(repr((told, digests)).encode()).hexdigest()[:8]


def _check_complete(sources: Sequence[Mapping[str, Any]]) -> None:
    """Raises FileNotFoundError if a source's logged set is not there as a whole."""
    for source in sources:
        if missing := [number for number in range(CHUNKS) if not chunk_file(source, number).is_file()]:
            raise FileNotFoundError(f"Chunks {missing} of {source['problem']} are missing. Run python -m benchmarks.logged.")


def _sources(fold: str) -> list[dict[str, Any]]:
    """What is learned from in a fold."""
    if fold == SMOKE:
        return training_sources(None)[::9]
    return sources_of_fold(fold)


def scores(case: str, names: Mapping[str, str], settings: Mapping[str, Any], run: Run) -> dict[str, dict[str, Any]]:
    """By policy: ``scores``, the ``delta_m`` of each instance over single-task learning at the rate found for it, and passes."""
    count = run.size(FAMILY_INSTANCES if case in FAMILY_CASES else INSTANCES, 5)
    given = {"train_steps": 60} if run.smoke else {}
    frame = played(case, names, settings, run, instances=count, num_envs=count, **given)
    frame = rescored(frame, single_task(case, settings, range(count), **given))
    runs = frame.drop_duplicates(["policy", "instance"])
    return {name: _row(of_policy(runs, name)) for name in names}


def _row(runs: pd.DataFrame) -> dict[str, Any]:
    """Scores by instance, and the mean numbers of forward and backward passes."""
    passes = [round(float(runs[name].mean()), 1) for name in ("forward", "backward")]
    return {"scores": [round(float(own), 3) for own in runs["delta_m"]], "passes": passes}


def heuristics(known: dict[str, Any], run: Run) -> None:
    """Searches each heuristic on the left-out teachers, and plays it; kept after each."""
    for case in FAMILY_CASES:
        row = known.setdefault(HEURISTICS, {}).setdefault(case, {**searched_in(case), "settings": {}})
        tried = Scores(case, run)
        for label, policy in {SINGLE_TASK: SINGLE_TASK, **_others(policies(case, run.smoke))}.items():
            if label not in row["settings"]:
                found = search(policy, tried)
                row["settings"][label] = {name: found[name] for name in ("policy", "factor", "trainings")}
                run.write(known)
                print(case, label, row["settings"][label], flush=True)
        names = {label: label for label in row["settings"] if label != SINGLE_TASK}
        row["policies"] = scores(case, names, row["settings"], run)
        run.write(known)


def _others(names: Mapping[str, str]) -> dict[str, str]:
    """Without the policies that folds play."""
    return {label: name for label, name in names.items() if label not in ("rule", *RULES)}


def blind(known: dict[str, Any], run: Run) -> None:
    """Plays policies as they are, at the problem's own learning rate; first the cheap ones everywhere."""
    for names in (CHEAP, DEAR):
        for case in [*FAMILY_CASES, *(case for cases in FOLDS.values() for case in cases)]:
            settings = {SINGLE_TASK: _settings(case, known).get(SINGLE_TASK, {})}
            row = known.setdefault(BLIND, {}).setdefault(case, {})
            missing = {name: name for name in names if name not in row}
            row |= scores(case, missing, settings, run) if missing else {}
            run.write(known)
            print(case, BLIND, *missing, flush=True)


def _settings(case: str, known: Mapping[str, Any], smoke: bool = False) -> Mapping[str, Any]:
    """What was found for each heuristic on a case; raises FileNotFoundError if references would be those of another rate."""
    if case not in FAMILY_CASES:
        return found_settings(case)
    found = known.get(HEURISTICS, {}).get(case, {}).get("settings", {})
    if SINGLE_TASK not in found and not smoke:
        raise FileNotFoundError(
            f"There is no learning rate of single-task learning on {case}. Run python -m benchmarks.transfer heuristics."
        )
    return dict(found)


def fold(name: str, known: dict[str, Any], run: Run) -> None:
    """Plays a fold's agents on what they have not seen."""
    with tempfile.TemporaryDirectory() as made:
        files = agents(name, Path(made) if run.smoke else AGENTS)
        _judge(name, files, known, run)


def choose(known: dict[str, Any], run: Run) -> None:
    """What agents that learned on teachers alone, and rules, gain over `init` on new teachers: by this, one recipe is shipped.

    Each source of teachers draws lengths, numbers of tasks and rates that none of them had. No shipped problem takes part. Kept
    after each policy; gains are over the deviation between policies, so they are computed from all of them.
    """
    sources = [drawn_settings(source, FIRST_DRAW + draw) for draw in range(DRAWS) for source in sources_of_fold(TEACHERS_ALONE)]
    files = agents(TEACHERS_ALONE, AGENTS)
    files |= {name: [name] for name in ("init", "ew", "stch")} | {name: [rule] for name, rule in RULES.items()}
    row = known.setdefault(CHOOSE, {"qualities": {}})
    for recipe, own in files.items():
        told = [_named(file) for file in own]
        if row["qualities"].get(recipe, {}).get("of") == told:
            continue
        _train(TEACHERS_ALONE, {recipe: own})
        policies, ids = [make_policy(file) for file in own], [*DRAWN] * len(own)
        together = Seeds(policies) if len(own) > 1 else policies[0]
        found = np.stack([finals(together, source, ids, "reward").reshape(len(own), -1) for source in sources], axis=1)
        rounded = [[[None if isnan(one) else round(one, 2) for one in draw] for draw in seed] for seed in found.tolist()]
        row["qualities"][recipe] = {"of": told, "scores": rounded}
        run.write(known)
        print(CHOOSE, recipe, flush=True)
    row["gains"] = _gains({recipe: own["scores"] for recipe, own in row["qualities"].items()})
    run.write(known)
    print({recipe: [round(mean(seed), 3) for seed in own] for recipe, own in row["gains"].items()}, flush=True)


class Seeds:
    """Agents that differ in their training's seed alone, as one policy: each plays as many rows, one after the other."""

    def __init__(self, policies: Sequence[Any]) -> None:
        self.policies, self.requires = policies, policies[0].requires

    def predict(self, seen: Mapping[str, Any], state: Any = None, start: Any = None, deterministic: bool = True) -> tuple[Any, Any]:
        """Actions (N, A), and the memory of each."""
        parts = {name: np.split(values, len(self.policies)) for name, values in seen.items()}
        own = [{name: values[place] for name, values in parts.items()} for place in range(len(self.policies))]
        states = state or [None] * len(self.policies)
        answers = [policy.predict(*pair, deterministic=True) for policy, *pair in zip(self.policies, own, states, strict=True)]
        return np.concatenate([actions for actions, _ in answers]), [memory for _, memory in answers]


def _gains(qualities: Mapping[str, Sequence[Sequence[Sequence[float | None]]]]) -> dict[str, list[list[float]]]:
    """By recipe: gains (S, D) of seeds over `init`, by draws of settings, in deviations between all of them."""
    names = [(recipe, seed) for recipe, own in qualities.items() for seed in range(len(own))]
    columns = [("init", 0), *(name for name in names if name[0] != "init")]
    table = np.array([qualities[recipe][seed] for recipe, seed in columns], np.float64)  # (P, D, n)
    means = np.stack([scaled(table[:, draw].T).mean(0) for draw in range(table.shape[1])], axis=1)  # (P, D)
    found: dict[str, list[list[float]]] = {}
    for (recipe, _), own in zip(columns, means.round(3).tolist(), strict=True):
        found.setdefault(recipe, []).append(own)
    return found


def ship(known: dict[str, Any], run: Run) -> None:
    """Installs the agent that learned on teachers alone, of the first seed: no shipped problem took part."""
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "agent.safetensors"
        _check_complete(sources_of_fold(TEACHERS_ALONE))
        begun = time.perf_counter()
        RECIPES[SHIPPED](sources_of_fold(TEACHERS_ALONE), 0, file)
        known[SHIP] = {"recipe": SHIPPED, "seed": 0, "seconds": round(time.perf_counter() - begun, 1)}
        shutil.copy(file, FOLDER / "ppo_rule.safetensors")
    run.write(known)


def _judge(name: str, files: Mapping[str, Sequence[str]], known: dict[str, Any], run: Run) -> None:
    """Plays the agents of these files, as they are and with searched rates; those that are known already are kept.

    Of those that learned on teachers alone, only the shipped recipe's rates are searched.
    """
    everything = tuple(case for cases in FOLDS.values() for case in cases)
    left_out = FOLDS.get(name, everything if name == TEACHERS_ALONE else ())
    for case in [*left_out, *FAMILY_CASES][: 1 if run.smoke else None]:
        row = known.setdefault("folds", {}).setdefault(name, {}).setdefault(case, {})
        played_by, about = row.setdefault("agents", {}), searched_in(case)
        told = {recipe: [[_named(file) for file in own], about, run.size(INSTANCES)] for recipe, own in files.items()}
        missing = {recipe: own for recipe, own in files.items() if played_by.get(recipe) != told[recipe]}
        if not missing:
            continue
        _train(name, missing)
        searched = {recipe: own for recipe, own in missing.items() if name != TEACHERS_ALONE or recipe == SHIPPED}
        rates = _rates(case, searched, run)
        row["rates"] = {**row.get("rates", {}), **rates}
        for kind, own in {"as it is": dict.fromkeys(missing, 1.0), "searched": rates}.items():
            rows = _together(case, {recipe: files[recipe] for recipe in own}, own, known, run)
            row[kind] = {**row.get(kind, {}), **rows}
            print(
                name,
                case,
                kind,
                {recipe: [round(mean(one), 2) for one in own["scores"]] for recipe, own in rows.items()},
                flush=True,
            )
        played_by |= {recipe: told[recipe] for recipe in missing}
        run.write(known)


def _together(
    case: str, files: Mapping[str, Sequence[str]], factors: Mapping[str, float], known: Mapping[str, Any], run: Run
) -> dict[str, dict[str, Any]]:
    """By recipe: the ``scores`` (S, n) of its agents at a factor of the problem's rate, and their passes."""
    names = {f"{recipe}-{seed}": file for recipe, own in files.items() for seed, file in enumerate(own)}
    settings = {SINGLE_TASK: _settings(case, known, run.smoke).get(SINGLE_TASK, {})}
    for label, file in names.items():
        if (factor := factors[label.rpartition("-")[0]]) != 1.0:
            settings[label] = {"policy": file, "factor": factor}
    found = scores(case, names, settings, run) if names else {}
    seeds = {recipe: [found[f"{recipe}-{seed}"] for seed in range(len(own))] for recipe, own in files.items()}
    return {recipe: {"scores": [row["scores"] for row in own], "passes": own[0]["passes"]} for recipe, own in seeds.items()}


def _named(file: str) -> str:
    """An agent by its file, which names what it learned from, and a rule with all its options."""
    return Path(file).stem if file.endswith(".safetensors") else f"{file}: {make_policy(file).spec['options']}"


def _rates(case: str, files: Mapping[str, Sequence[str]], run: Run) -> dict[str, float]:
    """The factor of the problem's rate that the first agent of each recipe prefers."""
    tried = Scores(case, run)
    return {recipe: search(own[0], tried)["factor"] for recipe, own in files.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Runs each part and adds it to the results."""
    run: Run = command_line(words)
    parts = {HEURISTICS: heuristics, BLIND: blind, CHOOSE: choose, SHIP: ship}
    for name in run.names or ((SMOKE,) if run.smoke else (HEURISTICS, BLIND, CHOOSE, *FOLDS, TEACHERS_ALONE, SHIP)):
        known = run.known()
        if name in parts:
            parts[name](known, run)
        else:
            fold(name, known, run)


if __name__ == "__main__":
    main()
