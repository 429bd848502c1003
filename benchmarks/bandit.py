"""An agent learned from a logged set: a contextual bandit over the coefficients of a rule, distilled into a policy of SB3.

    python -m benchmarks.logged      first: the logged set
    python -m benchmarks.bandit      how much it explains, and which caution is best (minutes)

From ``benchmarks/logged.py`` a ridge regression learns what a rule gains over `init` on the same training: a quadratic function of
its coefficients' distances from those of `init`, which is tilted by what was observed when the siblings parted. The policy then
maximises, over all observed points, what it expects of its coefficients, less ``CAUTION`` standard errors; `init` itself has the
value 0 without error. So it leaves `init` only where that is known to help, and does not leave what the logged set holds. The
policy is SB3's PPO policy, and is saved and loaded as every agent is.

Writes ``benchmarks/results/bandit.json``, by parts:

- ``siblings``: the share of the squares of gains that a regression explains on instances, and on sources, that it has not seen,
  from all observations, some, or none; and what is gained there by the sibling that it likes best;
- ``cautions``: what agents that learned on teachers gain over `init` on the source of teachers that they have not seen, by caution;
- ``gains``: what agents of all sources gain on new training instances of them, beside rules, in deviations between policies.

The caution was chosen by the second part, on teachers alone. The ranges of the logged set and the penalties were chosen on training
instances of all sources, so also of problems that a fold leaves out: what a fold has not seen are the data in its regression, and
all instances for evaluation.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import rules
from benchmarks.folds import training_sources
from benchmarks.logged import DECISIONS, FIRST, FOLDER, OBSERVED, SMOKE, Chunk, collect, logged
from benchmarks.measuring import Run, command_line, rollout, vector_env
from benchmarks.rules import REACH, final_quality
from mtl_gym.agents.agent import Agent, agent_of
from mtl_gym.agents.learning import make_model
from mtl_gym.agents.randomness import Stream
from mtl_gym.agents.settings import Settings
from mtl_gym.agents.sources import sources_of
from mtl_gym.decisions.task_features import DEFAULT_FEATURES
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.policies.grammar import make_policy

Array = npt.NDArray[np.float64]
RIDGE, ALONE = 100.0, 10.0
"""Penalties of what depends on the observed, and of what does not."""
STEPS, RATE, BATCH = 600, 3e-3, 1024
CAUTION, LEASH = 2.0, 30.0
FLOOR, MOST = 0.5, 3.0
"""Smallest deviation between siblings that counts, in points, and the most deviations that a difference counts."""
CAUTIONS, VALIDATION = (0.0, 2.0, 4.0, 8.0), 24
"""Cautions that are tried, and instances of each source."""
HELD_OUT = ("pooled_overfit", "pooled_overfit_slope", "pooled_meta_slope")
"""Observations that need held-out losses."""
PLAIN = ("first", "loss", "base", "gap")
"""The features that need no held-out losses, and of which the logged set has coefficients without any of the others."""
FEATURES = {"plain features": PLAIN, "all features": DEFAULT_FEATURES}
RUN = ("progress", "log_epoch", "log_lr")
"""What says where a training stands, in the order of ``OBSERVED``, whose first names they are."""
INPUTS: dict[str, tuple[str, ...]] = {
    "all": OBSERVED,
    "no held-out losses": tuple(name for name in OBSERVED if name not in HELD_OUT),
    "run": RUN,
    "nothing": (),
}
"""Names of observations from which gains are explained."""
INIT = torch.from_numpy(rules.INIT / REACH)
"""The action of `init`."""
_UNITS = torch.tensor([0.5, *({"first": 0.5, "loss": 0.5, "base": 0.5, "gap": 0.25}.get(name, 0.1) for name in DEFAULT_FEATURES)])


class Logs:
    """The logged sets of sources, by instance.

    They are ``seen`` {name: (I, F)}, ``actions`` (I, S, A) and ``gains`` (I, S), and the places ``source`` and ``chunk`` (I,).
    Gains are over the first sibling, `init`, over the source's usual distance from it.
    """

    def __init__(self, sources: Sequence[Mapping[str, Any]], folder: Path = FOLDER) -> None:
        parts = [(place, chunk) for place, source in enumerate(sources) for chunk in logged(source, folder)]
        missing = [source["problem"] for place, source in enumerate(sources) if place not in {place for place, _ in parts}]
        if missing:
            raise FileNotFoundError(f"There is no logged set of {', '.join(missing)} in {folder}. Run python -m benchmarks.logged.")
        gains = [_gains([chunk for own, chunk in parts if own == place]) for place in range(len(sources))]
        self.seen = {name: _stacked([chunk[f"x_{name}"] for _, chunk in parts]) for name in OBSERVED}
        self.actions = _stacked([chunk["actions"] for _, chunk in parts])
        self.gains = _stacked(gains)
        self.source = _stacked([np.full(len(chunk["quality"]), place) for place, chunk in parts]).long()
        self.chunk = _stacked([np.full(len(chunk["quality"]), number) for number, (_, chunk) in enumerate(parts)]).long()

    def bootstrap(self) -> Tensor:
        """Instances (n,) of as many chunks of each source as there are, drawn with replacement."""
        chunks = [self.chunk[self.source == own].unique() for own in self.source.unique()]
        drawn = torch.cat([own[torch.randint(len(own), (len(own),))] for own in chunks])
        return torch.cat([(self.chunk == own).nonzero()[:, 0] for own in drawn])

    def shares(self, chosen: Tensor) -> Tensor:
        """Weights (n,) of instances, 1 in the mean, with which all sources count alike."""
        weights = 1 / torch.bincount(self.source[chosen]).double()[self.source[chosen]]
        return weights / weights.mean()


def _stacked(parts: Sequence[npt.NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).double()


def _gains(chunks: Sequence[Chunk]) -> Array:
    """Gains (I, S) over the first sibling of a source's chunks; a training that diverged is ``MOST`` deviations worse."""
    quality = np.concatenate([chunk["quality"] for chunk in chunks])
    return scaled(np.where(np.concatenate([chunk["diverged"] for chunk in chunks]), np.nan, quality))


def scaled(quality: Array) -> Array:
    """Gains (I, S) over the first column, over their usual size; ``-MOST`` where they are not known, 0 where the first is not."""
    lost = ~np.isfinite(quality)
    apart = np.where(lost, np.nan, quality) - np.where(lost, np.nan, quality)[:, :1]
    deviation = max(1.4826 * float(np.nanmedian(np.abs(apart[:, 1:]))), FLOOR)
    gains = np.nan_to_num((apart / deviation).clip(-MOST, MOST), nan=-MOST)
    return np.asarray(np.where(lost[:, :1], 0.0, gains))  # nothing is learned where `init` itself diverged


class Regression:
    """A ridge regression of gains on what is observed and done, with the covariance of its coefficients.

    Its terms are the distances of an action from `init`, each alone and times every number that is observed and every product of
    two of ``RUN``, and the products of two distances. The covariance takes a chunk, whose trainings share their length and more, as
    one (a sandwich estimate).

    Args:
        logs: The logged set.
        chosen: The instances (n,) of it that are learned from.
        names: What is observed.
        used: Which numbers (A,) of an action count.
    """

    def __init__(self, logs: Logs, chosen: Tensor, names: Sequence[str], used: Tensor) -> None:
        self.names, self.used = tuple(names), used
        joined = self._joined(logs.seen, chosen)
        self._mean = joined.mean(0)
        self._deviation = (joined - self._mean).square().mean(0).sqrt().clamp(min=1e-3)
        within = (logs.actions[chosen][..., ~used] == 0).all(-1)  # (n, S): what cannot be done teaches nothing
        weights = logs.shares(chosen)[:, None] * within
        terms = self._terms(logs.seen, chosen, logs.actions[chosen])  # (n, S, P)
        weighted, gains = (terms * weights[..., None]).flatten(0, 1), logs.gains[chosen]
        inverse = torch.linalg.inv(weighted.T @ terms.flatten(0, 1) + torch.diag(self._penalty()))
        self.coefficients = inverse @ (weighted.T @ gains.flatten())  # (P,)
        errors = (gains - terms @ self.coefficients) * weights
        scores = (terms * errors[..., None]).sum(1) @ inverse  # (n, P)
        self._spread = torch.zeros(int(logs.chunk.max()) + 1, len(inverse)).double().index_add(0, logs.chunk[chosen], scores)
        self._spread = torch.linalg.cholesky(self._spread.T @ self._spread + 1e-9 * torch.eye(len(inverse)).double())

    def __call__(self, seen: Mapping[str, Tensor], rows: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Expected gains (n, S), and their standard errors, of actions (n, S, A) where these rows (n,) were observed."""
        terms = self._terms(seen, rows, actions)
        return terms @ self.coefficients, ((terms @ self._spread).square().sum(-1) + 1e-12).sqrt()

    def _joined(self, seen: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """What is observed (n, F): of pooled observations the mean and the deviation."""
        parts = [seen[name][rows][:, :2] for name in self.names]
        return torch.cat(parts, dim=1) if parts else torch.empty(len(rows), 0).double()

    def _values(self, seen: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """What is observed, and the products of two numbers of ``RUN`` (n, V), each in deviations."""
        values = ((self._joined(seen, rows) - self._mean) / self._deviation).clamp(-3, 3)
        run = [place for place, name in enumerate(self.names) if name in RUN]  # numbers, which come before pooled ones
        pairs = itertools.combinations_with_replacement(run, 2)
        return torch.cat([values, *((values[:, [i]] * values[:, [j]] - float(i == j)).clamp(-3, 3) for i, j in pairs)], dim=1)

    def _terms(self, seen: Mapping[str, Tensor], rows: Tensor, actions: Tensor) -> Tensor:
        """(n, S, P)."""
        values = self._values(seen, rows)[:, None]
        apart = ((actions - INIT) / _UNITS)[..., self.used]
        pairs = itertools.combinations_with_replacement(range(apart.shape[-1]), 2)
        products = torch.stack([apart[..., i] * apart[..., j] for i, j in pairs], dim=-1)
        return torch.cat([apart, products, (apart[..., None] * values[..., None, :]).flatten(2)], dim=-1)

    def _penalty(self) -> Tensor:
        """(P,)."""
        count = int(self.used.sum())
        alone = torch.full((count + count * (count + 1) // 2,), ALONE)
        run = sum(name in RUN for name in self.names)
        return torch.cat([alone, torch.full((count * (len(self._mean) + run * (run + 1) // 2),), RIDGE)]).double()


def learned(
    sources: Sequence[Mapping[str, Any]],
    seed: int,
    *,
    features: Sequence[str] = DEFAULT_FEATURES,
    inputs: str = "all",
    caution: float | None = None,
    steps: int = STEPS,
    folder: Path = FOLDER,
) -> Agent:
    """The agent that a logged set of sources teaches.

    Args:
        sources: Settings of which there is a logged set.
        seed: Seeds the bootstrap samples and the network.
        features: Those that it has coefficients of, rows of ``DEFAULT_FEATURES`` in their order.
        inputs: What it observes, a row of ``INPUTS``. Of ``nothing``, its coefficients are constant.
        caution: Standard errors by which it discounts; ``None``: ``CAUTION``.
        steps: Steps of the policy's training.
        folder: Where the logged set is.
    """
    names = INPUTS[inputs]
    observed = names or ("progress",)  # an agent observes something, even if it does not depend on it
    used = torch.tensor([True, *(name in features for name in DEFAULT_FEATURES)])
    settings = settings_of(sources, features, observed, seed)
    with Stream(seed):
        logs = Logs(sources, folder)
        regression = Regression(logs, logs.bootstrap(), names, used)  # seeds differ in what they saw
        model = make_model(settings, 0)
        teach(model.policy, regression, logs, observed, CAUTION if caution is None else caution, steps)
        agent = agent_of(model, settings)
    agent.about["training"] |= {"method": "benchmarks.bandit", "trainings": logs.gains.numel()}
    return agent


def settings_of(sources: Sequence[Mapping[str, Any]], features: Sequence[str], observed: Sequence[str], seed: int) -> Settings:
    """Those of an agent that runs on the sources."""
    shared = {"action": "rule", "decisions": DECISIONS, "features": [*features], "observe": [*observed], "reward": "quality"}
    arguments, *others = sources_of([dict(source) for source in sources], LOSS_WEIGHTING, shared)
    counts = {"time_steps": 1, "num_envs": len(sources), "rollouts_per_instance": 1, "evaluations": 1, "instances": 1}
    return Settings(LOSS_WEIGHTING, arguments, "ppo", {}, seed=seed, references=[], others=others, **counts)


def teach(policy: Any, regression: Regression, logs: Logs, observed: Sequence[str], caution: float, steps: int) -> None:
    """Trains the policy's actor, from `init` on, to maximise what the regression expects, within what the logged set holds."""
    used, distance = regression.used, _distance(logs)
    last = start_at(policy, INIT[used])
    optimizer = torch.optim.Adam(policy.parameters() if regression.names else [last.bias], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, max(steps, 2))
    shares = logs.shares(torch.arange(len(logs.gains)))
    for _ in range(steps):
        rows = torch.multinomial(shares, BATCH, replacement=True)
        said = mean_actions(policy, {name: logs.seen[name][rows].float() for name in observed}).double()
        whole = torch.zeros(BATCH, len(used)).double().index_copy(1, used.nonzero()[:, 0], said)
        gains, errors = regression(logs.seen, rows, whole[:, None])
        loss = LEASH * (distance(whole) - 1).relu().square().mean() - (gains - caution * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def start_at(policy: Any, action: Tensor) -> torch.nn.Linear:
    """Makes the coefficients (A,) of a policy's mean action the same for all observations; returns the layer that says them."""
    head = policy.action_net.module
    last: torch.nn.Linear = getattr(head, "rule", head)[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(action)
    return last


def _distance(logs: Logs) -> Callable[[Tensor], Tensor]:
    """The distance (n,) of actions (n, A) from those of the logged set, in their own covariance; 1 is that of usual ones."""
    flat = logs.actions.flatten(0, 1)
    mean, factor = flat.mean(0), torch.linalg.cholesky(torch.linalg.inv(flat.T.cov() + 1e-6 * torch.eye(flat.shape[1])))
    return lambda actions: ((actions - mean) @ factor).square().mean(1).clamp(min=1e-12).sqrt()


def mean_actions(policy: Any, seen: Mapping[str, Tensor]) -> Tensor:
    """The policy's mean actions (n, A)."""
    features = policy.extract_features(dict(seen), policy.pi_features_extractor)
    return policy.action_net(policy.mlp_extractor.forward_actor(features))


def explained(logs: Logs, names: Sequence[str], used: Tensor, part: Tensor) -> dict[str, float]:
    """What a regression explains of the gains of instances that it has not seen, and what its choice among siblings gains there.

    The instances of each part (I,) are judged by a regression on those of the other parts.
    """
    expected, within = torch.zeros_like(logs.gains), (logs.actions[..., ~used] == 0).all(-1)
    for own in part.unique():
        unseen = (part == own).nonzero()[:, 0]
        regression = Regression(logs, (part != own).nonzero()[:, 0], names, used)
        expected[unseen] = regression(logs.seen, unseen, logs.actions[unseen])[0]
    errors = (expected - logs.gains).square()[within][..., None]
    choice = expected.masked_fill(~within, -torch.inf).argmax(1, keepdim=True)
    gains = logs.gains.gather(1, choice)[:, 0]
    means = [float(gains[logs.source == own].mean()) for own in range(int(logs.source.max()) + 1)]
    share = 1 - float(errors.sum() / logs.gains[within].square().sum())
    error = float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0  # of another source, not another instance
    found = {"explained": share, "choice gains": float(np.mean(means)), "error": error}
    return {name: round(value, 3) for name, value in found.items()}


def finals(policy: Any, arguments: Mapping[str, Any], ids: Sequence[int], split: str = "reward") -> Array:
    """Final `quality` (n,) of instances with a policy on a split, in points; NaN where a training diverged."""
    given = {"reward": "none", **policy.requires.arguments(), **arguments}
    envs = vector_env(LOSS_WEIGHTING, len(ids), autoreset_mode="Disabled", **given)
    deque(rollout(envs, policy, ids), maxlen=0)
    quality = final_quality(envs, split)
    envs.close()
    return quality


def gained(
    agents: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], instances: int, **others: Any
) -> dict[str, list[float]]:
    """Mean gains of policies over `init` on each source, over the deviation of all policies from it on an instance."""
    found: dict[str, list[float]] = {name: [] for name in agents}
    for source in sources:
        ids, given = range(FIRST + 10**6, FIRST + 10**6 + instances), {**source, **others}
        qualities = [finals(own, given, ids) for own in (make_policy("init"), *agents.values())]
        gains = scaled(np.stack(qualities, axis=1)).mean(0)
        for name, own in zip(agents, gains[1:], strict=True):
            found[name].append(round(float(own), 3))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures what the logged set explains, and chooses the caution."""
    run: Run = command_line(words)
    if run.smoke:
        sources = training_sources(None)[::9]
        with tempfile.TemporaryDirectory() as folder:
            collect(sources, 1, Path(folder), **SMOKE)
            agents = {"learned-rule": learned(sources, 0, inputs="nothing", steps=2, folder=Path(folder))}
        run.write({"gains": gained(agents, sources, 2, train_steps=30)})
        return
    known, sources = run.known(), training_sources(None)
    for name in run.names or PARTS:
        known[name] = PARTS[name](sources)
        run.write(known)
        print(name, known[name], flush=True)


def siblings(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What regressions explain of the logged set and what they choose, on instances, and on sources, that they have not seen."""
    used = {name: torch.tensor([True, *(own in row for own in DEFAULT_FEATURES)]) for name, row in FEATURES.items()}
    with Stream(0):
        logs = Logs(sources)
        parts = {"unseen instances": torch.randperm(len(logs.gains)) % 5, "unseen sources": logs.source}
        rows = itertools.product(parts, used, INPUTS)
        known = {", ".join(row): explained(logs, INPUTS[row[2]], used[row[1]], parts[row[0]]) for row in rows}
    return {"instances": len(logs.gains), **known}


def cautions(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What agents gain over `init` on the source of teachers that they have not seen, by what they observe and their caution."""
    teachers = [source for source in sources if source["problem"] == "teachers"]
    found: dict[str, list[float]] = {}
    for place, source in enumerate(teachers):
        own = gained(_cautious(teachers[:place] + teachers[place + 1 :]), [source], VALIDATION)
        found = {name: [*found.get(name, []), *values] for name, values in own.items()}
    return {name: {"mean": round(float(np.mean(own)), 3), "sources": own} for name, own in found.items()}


def _cautious(sources: Sequence[Mapping[str, Any]]) -> dict[str, Agent]:
    """Agents that observe everything, and where a training stands alone, by their caution."""
    features = {"all": DEFAULT_FEATURES, "run": PLAIN}
    pairs = itertools.product(features, CAUTIONS)
    return {
        f"{inputs}, caution {caution:g}": learned(sources, 0, features=features[inputs], inputs=inputs, caution=caution)
        for inputs, caution in pairs
    }


def gains(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What agents and rules gain over `init` on new training instances, by source."""
    inputs = {"bandit-free": "no held-out losses", "bandit-run": "run", "learned-rule": "nothing"}
    agents: dict[str, Any] = {name: learned(sources, 0, features=PLAIN, inputs=own) for name, own in inputs.items()}
    agents |= {"bandit": learned(sources, 0)}
    agents |= {"base": make_policy("rule:first=1:base=1"), "level": make_policy("rule:first=1:base=1:level=1")}
    agents |= {name: make_policy(name) for name in ("best-rule", "stch", "igb")}
    return gained(agents, sources, VALIDATION)


PARTS = {"siblings": siblings, "cautions": cautions, "gains": gains}


if __name__ == "__main__":
    main()
