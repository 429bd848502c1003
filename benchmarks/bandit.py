"""An agent learned from a logged set: a contextual bandit over the coefficients of a rule, distilled into a policy of SB3.

    python -m benchmarks.logged      first: the logged set
    python -m benchmarks.bandit      how much it explains, and what caution is best (minutes)

An ensemble of networks learns from ``benchmarks/logged.py`` how much better a rule ends than its siblings, from what was observed
when they parted and from its coefficients; each member sees its own bootstrap sample of the instances. The policy then maximises,
over all observed points, what the ensemble expects of its coefficients over those of the best constant ones, less ``CAUTION``
deviations between members. The policy is SB3's PPO policy, and is saved and loaded as every agent is.

Writes ``benchmarks/results/bandit.json``: the share of the variance between siblings that an ensemble explains on instances that it
has not seen, with and without what is observed; and for some cautions what agents gain over `init` on new training instances of all
sources, in deviations between siblings. Nothing else chose ``CAUTION``.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.folds import training_sources
from benchmarks.logged import DECISIONS, FIRST, FOLDER, OBSERVED, SMOKE, Chunk, collect, logged
from benchmarks.measuring import Run, command_line, first_memory, vector_env
from benchmarks.rules import REACH
from mtl_gym.agents.agent import Agent, agent_of
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.settings import Settings
from mtl_gym.agents.sources import sources_of
from mtl_gym.decisions.task_features import DEFAULT_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems.scores import log_qualities

Array = npt.NDArray[np.float64]
MEMBERS, WIDTH, STEPS, BATCH = 8, 32, 1_500, 32
RATE, DECAY = 2e-3, 0.3
ACTOR_STEPS, ACTOR_RATE = 600, 3e-3
CAUTION = 1.0
EARLY = 1
"""The last decision whose logged points say what the best constant rule is."""
FLOOR, MOST = 0.5, 3.0
"""Smallest deviation between siblings that counts, in points, and the most deviations that a difference counts."""
CAUTIONS, VALIDATION = (0.25, 0.5, 1.0, 2.0), 24
"""Cautions that are tried, and instances of each source."""
INPUTS = {"all": OBSERVED, "the length and rate alone": ("progress", "log_epoch", "log_lr")}
"""Names of observations from which gains are explained."""
HELD_OUT = (("pooled_overfit", "pooled_overfit_slope", "pooled_meta_slope"), ("overfit", "overfit_slope"))
"""Observations and features that need held-out losses."""


class Logs:
    """The logged sets of sources, by instance.

    They are ``seen`` {name: (I, F)}, ``actions`` (I, S, A), ``gains`` (I, S), ``source`` (I,) and ``switch`` (I,). Gains are
    over the mean of the siblings, over the source's deviation between siblings.
    """

    def __init__(self, sources: Sequence[Mapping[str, Any]], folder: Path = FOLDER) -> None:
        parts = [(place, chunk) for place, source in enumerate(sources) for chunk in logged(source, folder)]
        missing = [source["problem"] for place, source in enumerate(sources) if place not in {place for place, _ in parts}]
        if missing:
            raise FileNotFoundError(f"There is no logged set of {', '.join(missing)} in {folder}. Run python -m benchmarks.logged.")
        gains = [_gains([chunk for own, chunk in parts if own == place]) for place in range(len(sources))]
        self.seen = {name: torch.from_numpy(np.concatenate([chunk[f"x_{name}"] for _, chunk in parts])) for name in OBSERVED}
        self.actions = torch.from_numpy(np.concatenate([chunk["actions"] for _, chunk in parts])).float()
        self.gains = torch.from_numpy(np.concatenate(gains)).float()
        self.source = torch.from_numpy(np.concatenate([np.full(len(chunk["quality"]), place) for place, chunk in parts]))
        self.switch = torch.from_numpy(np.concatenate([np.full(len(chunk["quality"]), chunk["switch"]) for _, chunk in parts]))


def _gains(chunks: Sequence[Chunk]) -> Array:
    """Gains (I, S) of a source's chunks; a training that diverged is ``MOST`` deviations worse than the others."""
    quality = np.concatenate([chunk["quality"] for chunk in chunks])
    lost = np.concatenate([chunk["diverged"] for chunk in chunks]) | ~np.isfinite(quality)
    known = np.where(lost, np.nan, quality)
    middle = np.ma.median(np.ma.masked_invalid(known), axis=1, keepdims=True).filled(0.0)
    deviation = max(1.4826 * float(np.nanmedian(np.abs(known - middle))), FLOOR)
    apart = np.where(lost, -MOST, ((quality - middle) / deviation).clip(-MOST, MOST))
    return np.asarray(apart - apart.mean(1, keepdims=True))


class Ensemble(nn.Module):
    """``MEMBERS`` networks of what is observed and done; their values count up to a constant of the observed."""

    def __init__(self, seen: Mapping[str, Tensor], actions: int) -> None:
        super().__init__()
        values = _joined(seen)
        self.names = list(seen)
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("deviation", values.std(0).clamp(min=1e-3))
        sizes = (values.shape[1] + actions, WIDTH, WIDTH, 1)
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList([torch.randn(MEMBERS, first, second) / first**0.5 for first, second in pairs])
        self.biases = nn.ParameterList([torch.zeros(MEMBERS, 1, second) for _, second in pairs])

    def forward(self, seen: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """Values (M, ...) of actions (M or 1, ..., A); ``seen`` (..., F) are shared by all members, or (M, ..., F)."""
        known = ((_joined({name: seen[name] for name in self.names}) - self.mean) / self.deviation).clamp(-5, 5)
        known = known.expand(*actions.shape[:-1], -1)
        values = torch.cat([known, actions], dim=-1)
        shape = values.shape[1:-1]
        values = values.flatten(1, -2).expand(MEMBERS, -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weight)
            values = torch.tanh(values) if layer < len(self.weights) - 1 else values
        return values.view(MEMBERS, *shape)


def _joined(seen: Mapping[str, Tensor]) -> Tensor:
    return torch.cat(list(seen.values()), dim=-1)


def fitted(logs: Logs, chosen: Tensor, observed: Sequence[str], steps: int = STEPS) -> Ensemble:
    """An ensemble fitted to these instances: gains over the siblings' mean, sources weighted alike."""
    seen = {name: logs.seen[name][chosen] for name in observed}
    actions, gains, source = logs.actions[chosen], logs.gains[chosen], logs.source[chosen]
    ensemble = Ensemble(seen, actions.shape[-1])
    counts = torch.bincount(source).float()
    shares = (1 / counts[source]).expand(MEMBERS, -1)
    bags = torch.stack([torch.multinomial(row, len(row), replacement=True) for row in shares])
    optimizer = torch.optim.AdamW(ensemble.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(steps):
        rows = bags.gather(1, torch.randint(bags.shape[1], (MEMBERS, BATCH)))  # (M, b)
        values = ensemble({name: own[rows][:, :, None] for name, own in seen.items()}, actions[rows])  # (M, b, S)
        loss = (values - values.mean(-1, keepdim=True) - gains[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return ensemble.requires_grad_(False)


def explained(ensemble: Ensemble, logs: Logs, chosen: Tensor) -> float:
    """The share of the variance of gains that the ensemble's mean explains on these instances."""
    seen = {name: logs.seen[name][chosen][:, None] for name in ensemble.names}
    values = ensemble(seen, logs.actions[chosen][None]).mean(0)
    gains = logs.gains[chosen]
    return float(1 - (values - values.mean(-1, keepdim=True) - gains).square().mean() / gains.square().mean())


def learned(
    sources: Sequence[Mapping[str, Any]],
    seed: int,
    *,
    held_out: bool = True,
    caution: float | None = None,
    fitting: int = STEPS,
    steps: int = ACTOR_STEPS,
    folder: Path = FOLDER,
) -> Agent:
    """The agent that a logged set of sources teaches.

    Args:
        sources: Settings of which there is a logged set.
        seed: Seeds the bootstrap samples and the networks.
        held_out: Whether it observes held-out losses, and has features of them.
        caution: Deviations between members by which the policy discounts; ``None``: ``CAUTION``.
        fitting: Steps of the ensemble.
        steps: Steps of the actor; 0: its coefficients are constant.
        folder: Where the logged set is.
    """
    features = [name for name in DEFAULT_FEATURES if held_out or name not in HELD_OUT[1]]
    observed = [name for name in OBSERVED if held_out or name not in HELD_OUT[0]]
    used = torch.tensor([True, *(name in features for name in DEFAULT_FEATURES)])
    with Stream(seed):
        logs = Logs(sources, folder)
        chosen = torch.arange(len(logs.gains))
        ensemble = fitted(logs, chosen, observed, fitting)
        constant = best_constant(ensemble, logs, chosen[logs.switch <= EARLY], used)
        model = make_model(_settings(sources, features, observed, seed), 0)
        taught(model.policy, ensemble, logs, chosen, constant, used, steps, CAUTION if caution is None else caution)
        agent = agent_of(model, _settings(sources, features, observed, seed))
    agent.about["training"] |= {"method": "benchmarks.bandit", "trainings": logs.gains.numel()}
    return agent


def _settings(sources: Sequence[Mapping[str, Any]], features: list[str], observed: list[str], seed: int) -> Settings:
    """Those of an agent that runs on the sources."""
    shared = {"action": "rule", "decisions": DECISIONS, "features": features, "observe": observed, "reward": "quality"}
    arguments, *others = sources_of([dict(source) for source in sources], LOSS_WEIGHTING, shared)
    counts = {"time_steps": 1, "num_envs": len(sources), "rollouts_per_instance": 1, "evaluations": 1, "instances": 1}
    return Settings(LOSS_WEIGHTING, arguments, "ppo", {}, seed=seed, references=[], others=others, **counts)


def support(logs: Logs) -> tuple[Tensor, Tensor]:
    """The least and largest actions (A,) that the logged set holds."""
    flat = logs.actions.flatten(0, 1)
    return flat.amin(0), flat.amax(0)


def best_constant(ensemble: Ensemble, logs: Logs, chosen: Tensor, used: Tensor) -> Tensor:
    """The constant action (A,) whose mean value, less ``CAUTION`` deviations of it between members, is largest; others are 0."""
    low, high = support(logs)
    seen = {name: logs.seen[name][chosen] for name in ensemble.names}
    weights = _weights(logs.source[chosen])
    action = torch.tensor([0.0, 0.5, *[0.0] * (len(REACH) - 2)]).requires_grad_()
    optimizer = torch.optim.Adam([action], lr=0.02)
    for _ in range(200):
        inside = torch.minimum(torch.maximum(action, low), high) * used
        means = (ensemble(seen, inside.expand(1, len(chosen), -1)) * weights).sum(1)  # (M,)
        base = (ensemble(seen, _init(used).expand(1, len(chosen), -1)) * weights).sum(1)
        loss = -((means - base).mean() - CAUTION * (means - base).std())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (torch.minimum(torch.maximum(action, low), high) * used).detach()


def _init(used: Tensor) -> Tensor:
    """The action of `init`."""
    return torch.tensor([0.0, 0.5, *[0.0] * (len(used) - 2)])


def _weights(source: Tensor) -> Tensor:
    """Weights (n,) with a sum of 1, in which all sources count alike."""
    shares = 1 / torch.bincount(source).float()[source]
    return shares / shares.sum()


def taught(
    policy: Any, ensemble: Ensemble, logs: Logs, chosen: Tensor, constant: Tensor, used: Tensor, steps: int, caution: float
) -> None:
    """Trains the policy's actor, from the constant action on, to maximise what the ensemble expects over the constant."""
    low, high = support(logs)
    source, last = logs.source[chosen], policy.action_net.module[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(constant[used])
    optimizer = torch.optim.Adam(policy.parameters(), lr=ACTOR_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, ACTOR_RATE, max(steps, 2))
    for _ in range(steps):
        rows = chosen[torch.multinomial(_weights(source), 1024, replacement=True)]
        seen = {name: logs.seen[name][rows] for name in OBSERVED}
        said = mean_actions(policy, {name: seen[name] for name in ensemble.names})
        whole = torch.zeros(len(rows), len(used)).index_copy(1, used.nonzero()[:, 0], said)
        inside = torch.minimum(torch.maximum(whole, low), high)
        values = ensemble(seen, inside[None]) - ensemble(seen, constant.expand(1, len(rows), -1))
        loss = -(values.mean(0) - caution * values.std(0)).mean() + (whole - inside).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def mean_actions(policy: Any, seen: Mapping[str, Tensor]) -> Tensor:
    """The policy's mean actions (n, A)."""
    features = policy.extract_features(dict(seen), policy.pi_features_extractor)
    return policy.action_net(policy.mlp_extractor.forward_actor(features))


def validated(agent: Any, source: Mapping[str, Any], instances: int, **others: Any) -> Array:
    """Final `quality` (n,) on *reward*, in points, of new training instances of a source, with a policy."""
    given = {"problem": source["problem"], "reward": "none", **agent.requires.arguments(), **source, **others}
    envs = vector_env(LOSS_WEIGHTING, instances, autoreset_mode="Disabled", **given)
    ids = FIRST + 10**6 + np.arange(instances)
    seen, _ = envs.reset(options={"instance": ids})
    memory = first_memory(agent, ids, envs.arguments.recipe.num_tasks)
    while not envs.finished.all():
        actions, memory = agent.predict(seen, memory, deterministic=True)
        seen = envs.step(actions)[0]
    trainer = envs.decision.trainer
    quality = (
        100 * log_qualities(trainer.problem, trainer.metrics("reward")).gather(1, trainer.ledger.tasks).mean(1).double().numpy()
    )
    envs.close()
    return np.asarray(np.where(np.isfinite(quality), quality, -1e3))


def gained(
    agents: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], instances: int, **others: Any
) -> dict[str, list[float]]:
    """Mean gains of policies over `init` on each source, over the deviation of all policies from it on an instance."""
    found: dict[str, list[float]] = {name: [] for name in agents}
    base = make_policy("init")
    for source in sources:
        start = validated(base, source, instances, **others)
        apart = {name: validated(own, source, instances, **others) - start for name, own in agents.items()}
        deviation = max(1.4826 * float(np.median(np.abs([*apart.values()]))), FLOOR)
        for name, own in apart.items():
            found[name].append(round(float((own / deviation).clip(-MOST, MOST).mean()), 3))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures what the logged set explains, and chooses the caution."""
    run: Run = command_line(words)
    if run.smoke:
        sources = training_sources(None)[::9]
        with tempfile.TemporaryDirectory() as folder:
            collect(sources, 1, Path(folder), **SMOKE)
            agents = {"constant": learned(sources, 0, fitting=2, steps=0, folder=Path(folder))}
        run.write({"gains": gained(agents, sources, 2, train_steps=30)})
        return
    sources = training_sources(None)
    with Stream(0):
        logs = Logs(sources)
        order = torch.randperm(len(logs.gains))
        seen, unseen = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
        known = {name: round(explained(fitted(logs, seen, own), logs, unseen), 3) for name, own in INPUTS.items()}
    agents = {f"caution {caution:g}": learned(sources, 0, caution=caution) for caution in CAUTIONS}
    agents |= {"constant": learned(sources, 0, steps=0), "si": make_policy("si"), "si-mean": make_policy("si-mean")}
    found = gained(agents, sources, VALIDATION)
    run.write({"instances": len(logs.gains), "explained": known, "gains": found})
    print(known, {name: round(float(np.mean(own)), 3) for name, own in found.items()})


if __name__ == "__main__":
    main()
