"""An agent learned by an evolution strategy: CMA-ES over coefficients of a rule that depend linearly on where a training stands.

    python -m benchmarks.evolution              on teachers alone, three seeds (an hour; rerun to resume)
    python -m benchmarks.evolution digits       on what a fold trains on (benchmarks/folds.py)

A candidate says, at each decision, the coefficients of `level` (``benchmarks/rules.py``) plus a matrix times what is observed: the
progress, the number of epochs and the learning rate, standardised, and a constant. Each generation draws new training instances of
every source, at a length, a number of tasks and rates of its own (``benchmarks/logged.py``), which its candidates share. Scores are
final ones on *reward*, as in ``benchmarks/best_rule.py``. Then the size of the residual, the share of the matrix that is kept, is
chosen on further training instances, and a network of SB3 learns to say what is left, so that it is saved and played as all agents.

Every generation is kept in ``runs/evolution``. Writes ``benchmarks/results/evolution.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cma
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.bandit import FIRST, PLAIN, RUN, mean_actions, settings_of, start_at
from benchmarks.best_rule import Generations, relative
from benchmarks.folds import TEACHERS_ALONE, fingerprint, sources_of_fold
from benchmarks.logged import DECISIONS, drawn_settings
from benchmarks.measuring import RESULTS, ROOT, Run, command_line, rollout, vector_env
from benchmarks.rules import BASE, COLUMNS, DIVERGED, INIT, REACH, final_quality
from mtl_gym import LOSS_WEIGHTING, Requirements
from mtl_gym.agents.agent import Agent, agent_of
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.randomness import Stream

Array = npt.NDArray[np.float64]
GENERATIONS, CANDIDATES, INSTANCES, STEP = 30, 12, 4, 0.1
"""Of a search; the last is the first deviation of its numbers, which are actions."""
SIZES, VALIDATION = (0.0, 0.5, 1.0), 16
"""Sizes of the residual, and instances of each source that choose among them."""
SEEDS = 3
FOUND = RESULTS / "evolution.json"
CENTRE, SPREAD = np.array([0.5, 2.5, -5.5]), np.array([0.3, 1.5, 1.5])
"""What observations of ``RUN`` are standardised by."""
STEPS, RATE, BATCH = 1500, 3e-3, 512
USED = [0, *(COLUMNS.index(name) for name in PLAIN)]
"""The places of the level and of ``PLAIN`` among ``COLUMNS``."""
START, ORIGIN = (BASE / REACH)[USED], (INIT / REACH)[USED]
"""The actions of `level` and `init`."""


class Linear:
    """A policy that says coefficients linear in what it observes, for each row its own.

    Args:
        matrices: (N, A, 1 + F), or (1, A, 1 + F) for all rows.
    """

    requires = Requirements(observe=RUN, action="rule", decisions=DECISIONS, env=LOSS_WEIGHTING, env_kwargs={"features": [*PLAIN]})

    def __init__(self, matrices: Array) -> None:
        self.matrices = matrices

    def predict(
        self, seen: Mapping[str, npt.NDArray[Any]], state: Any = None, start: Any = None, deterministic: bool = True
    ) -> tuple[Array, Any]:
        """Actions (N, A)."""
        values = standardised(np.concatenate([seen[name] for name in RUN], axis=1))
        matrices = np.broadcast_to(self.matrices, (len(values), *self.matrices.shape[1:]))
        return START + np.einsum("naf,nf->na", matrices, values), state


def standardised(values: Array) -> Array:
    """Observations (N, F) in deviations, within 3 of them, before a constant (N, 1 + F)."""
    own = ((values - CENTRE) / SPREAD).clip(-3, 3)
    return np.concatenate([np.ones((len(own), 1)), own], axis=1)


def scored(source: Mapping[str, Any], number: int, matrices: Array, instances: int, **others: Any) -> Array:
    """Final scores (1 + R, n) of `init` and of R candidates (R, A, 1 + F) on new instances of a source, in points."""
    to_init = np.zeros((1, *matrices.shape[1:]))
    to_init[0, :, 0] = ORIGIN - START
    rows = np.repeat(np.concatenate([to_init, matrices]), instances, axis=0)
    ids = np.tile(FIRST + number * instances + np.arange(instances), 1 + len(matrices))
    policy = Linear(rows)
    given = {"reward": "none", **policy.requires.arguments(), **drawn_settings(source, number), **others}
    envs = vector_env(LOSS_WEIGHTING, len(ids), autoreset_mode="Disabled", **given)
    for _ in rollout(envs, policy, ids):
        pass
    quality = final_quality(envs, "reward").reshape(-1, instances)
    envs.close()
    worst = np.nan_to_num(np.nanmin(quality, axis=0, initial=np.inf), posinf=0.0) - DIVERGED
    return np.where(np.isnan(quality), worst, quality)


def search(fold: str, seed: int, generations: int, candidates: int, instances: int, folder: Path | None, **others: Any) -> Any:
    """What CMA-ES finds on a fold's sources, as JSON shows it: the ``matrix``, the ``size`` that is kept, and how it came to it."""
    sources, shape = sources_of_fold(fold), (len(USED), 1 + len(RUN))
    options = {"seed": seed + 1, "popsize": candidates, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(np.zeros(np.prod(shape)), STEP, options)
    about = {"sources": [fingerprint(own) for own in sources], "instances": instances, "options": options, "step": STEP}
    kept, gains = Generations(None if folder is None else folder / f"{fold}-{seed}.jsonl", about), []
    for generation in range(generations):
        asked, number = np.array(strategy.ask()), 10_000 * (seed + 1) + generation
        matrices = asked.reshape(-1, *shape)
        scores = kept.scores(
            generation,
            lambda: [relative(scored(own, number, matrices, instances, **others)) for own in sources],  # noqa: B023
        )
        strategy.tell(asked, [-score for score in scores])
        gains.append(round(float(np.mean(scores)), 3))
        print(fold, seed, generation, gains[-1], flush=True)
    matrix = strategy.result.xfavorite.reshape(shape)
    sizes = sized(sources, matrix, 10_000 * (seed + 1) + 5_000, VALIDATION if folder else instances, **others)
    return {
        "trainings": generations * (candidates + 1) * instances * len(sources),
        "gains": gains,
        "sizes": sizes,
        "size": max(sizes, key=lambda name: sizes[name]),
        "matrix": matrix.round(4).tolist(),
    }


def sized(sources: Sequence[Mapping[str, Any]], matrix: Array, number: int, instances: int, **others: Any) -> dict[str, float]:
    """Mean gains over `init` by the size of the residual, on instances that no generation had."""
    matrices = np.stack([size * matrix for size in SIZES])
    gains = [relative(scored(own, number, matrices, instances, **others)) for own in sources]
    return {f"{size:g}": round(float(gain), 3) for size, gain in zip(SIZES, np.mean(gains, axis=0), strict=True)}


def found(fold: str, seed: int) -> dict[str, Any]:
    """What a search found; raises FileNotFoundError if it was not run."""
    known = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    if str(seed) not in known.get(fold, {}):
        raise FileNotFoundError(
            f"There is no result of seed {seed} on {fold} in {FOUND}. Run python -m benchmarks.evolution {fold}."
        )
    return dict(known[fold][str(seed)])


def evolved(sources: Sequence[Mapping[str, Any]], searched: Mapping[str, Any], seed: int, steps: int = STEPS) -> Agent:
    """An agent of SB3 that says what was found."""
    matrix = float(searched["size"]) * np.array(searched["matrix"])
    settings = settings_of(sources, PLAIN, RUN, seed)
    with Stream(seed):
        model = make_model(settings, 0)
        start_at(model.policy, torch.from_numpy(START))
        optimizer = torch.optim.Adam(model.policy.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, max(steps, 2))
        for _ in range(steps):
            values = CENTRE + SPREAD * (6 * torch.rand(BATCH, len(RUN)).double().numpy() - 3)
            wanted = Linear(matrix[None]).predict({name: values[:, [place]] for place, name in enumerate(RUN)})[0].clip(-1, 1)
            seen = {name: torch.from_numpy(values[:, [place]]).float() for place, name in enumerate(RUN)}
            loss = (mean_actions(model.policy, seen) - torch.from_numpy(wanted).float()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        agent = agent_of(model, settings)
    agent.about["training"] |= {"method": "benchmarks.evolution", "trainings": searched["trainings"]}
    return agent


def main(words: Sequence[str] | None = None) -> None:
    """Searches each fold and adds it to the results."""
    run: Run = command_line(words)
    known, folder = run.known(), None if run.smoke else ROOT / "runs" / "evolution"
    for fold in run.names or (TEACHERS_ALONE,):
        size = (2, 4, 1) if run.smoke else (GENERATIONS, CANDIDATES, INSTANCES)
        for seed in range(run.size(SEEDS)):
            row = search(fold, seed, *size, folder, **({"train_steps": 30} if run.smoke else {}))
            known.setdefault(fold, {})[str(seed)] = row
            run.write(known)
            print(fold, seed, row, flush=True)


if __name__ == "__main__":
    main()
