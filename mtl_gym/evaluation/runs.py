"""Runs plans: what is stored already, the batches that are missing, and the executor that trains them."""

from __future__ import annotations

import heapq
import importlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_gym.checks import should
from mtl_gym.context import own_mode, threads
from mtl_gym.environments import SCRIPTED
from mtl_gym.envs.arguments import Arguments
from mtl_gym.evaluation.executors.jobs import Advance, Executor, Job, Shared, Work
from mtl_gym.evaluation.kernels import warn_of_others
from mtl_gym.evaluation.plans import Plan, setting
from mtl_gym.evaluation.results import Result, opened, plain, spec_key
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.single_task import Metrics, keep_references, known_references, missing_batches, train_references
from mtl_gym.policies.protocol import Policy

REFERENCES = "single-task references"

OnProgress = Callable[[str, str, int], None]
"""Called with a plan's name, the label of the first policy that is not done, and the number of training steps just done."""
OnEnd = Callable[[str, list[Result]], None]
"""Called with a plan's name and its results, policy by policy, in the order of the instances."""


@own_mode()
def run_all(
    plans: Mapping[str, Plan],
    executor: Executor,
    *,
    out: Path | None = None,
    command: str | None = None,
    on_progress: OnProgress = lambda name, label, steps: None,
    on_end: OnEnd,
) -> None:
    """Runs every policy of every plan on every instance that ``out/results.sqlite`` does not hold yet; ``None`` stores nothing.

    Batches of all plans are trained by one executor, those of the first plan first. A batch's rows are stored when it ends.
    ``command`` is recorded as what made the results.
    """
    with threads(executor.threads):
        runs, jobs = {name: _Run(plan, out, command) for name, plan in plans.items()}, dict[int, tuple[str, _Batch]]()
        for name, run in runs.items():
            jobs |= {len(jobs) + place: (name, batch) for place, batch in enumerate(run.batches)}

        def advance(job: Job, steps: int) -> None:
            name, batch = jobs[min(jobs)]
            on_progress(name, batch.label, steps)

        def release(name: str) -> None:
            for place, (own, batch) in jobs.items():
                if own == name and (job := runs[name].job(place, batch)):
                    heapq.heappush(work.waiting, job)

        def end(name: str) -> None:
            if not any(own == name for own, _ in jobs.values()):
                on_end(name, runs[name].results())

        first = next(iter(plans.values()))
        shared = [one for run in runs.values() for one in run.shared()]
        most = max(plan.bytes for plan in plans.values())
        work = Work([], shared, advance, most, first.checked.recipe.device)
        executor.check(work)
        work.pickle_fresh()
        for run in runs.values():
            run.begin()
        for name, run in runs.items():
            on_progress(name, *run.known_steps())
            release(name)
            end(name)
        for job, value in executor.run(work):
            name, batch = jobs.pop(job.place)
            runs[name].take(batch, value)
            if batch.policy is None:
                release(name)
            end(name)


@dataclass(frozen=True)
class _Study:
    """What all batches of a plan share. An environment that a script defines is known to workers that import its module.

    Workers raise ValueError if they load another problem from its address.
    """

    env: str
    arguments: dict[str, Any]
    checked: Arguments
    home: str | None

    def __getstate__(self) -> dict[str, Any]:
        if self.home and self.home.startswith("__main__:"):
            raise TypeError(should("env", "be defined in a module, which workers can import", self.env))
        problem = self.checked.problem
        return vars(self) | {"identity": problem.identity if problem.found_by else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        identity = state.pop("identity")
        self.__dict__.update(state)
        problem = self.checked.problem
        if identity is not None and problem.identity != identity:  # which was loaded again
            remedy = "Seed what its function draws, and do not edit its file during a run."
            raise ValueError(should("problem", "be the same in every process", problem.address, remedy))
        if self.home:
            importlib.import_module(self.home.partition(":")[0])


@dataclass(frozen=True)
class _Batch:
    """Instances that are trained side by side with a policy; ``None``: alone on each task, as references."""

    label: str
    policy: str | None
    ids: tuple[int, ...]


def _train_references(study: _Study, ids: Sequence[int], *, advance: Advance) -> Metrics:
    return train_references(study.checked, ids, advance=advance)


def _train(study: _Study, policy: Policy, label: str, ids: Sequence[int], references: Metrics, *, advance: Advance) -> list[Result]:
    return rollout(label, policy, study.env, ids, arguments=study.arguments, references=references, advance=advance)


class _Run:
    """A plan, what is known of its results, and the batches that are missing."""

    def __init__(self, plan: Plan, out: Path | None, command: str | None) -> None:
        self.plan, self._command, self._setting = plan, command, setting(plan)
        self._specs = {label: _specs(plan, self._setting, label, policy) for label, policy in plan.policies.items()}
        self._keys = {label: {id: spec_key(spec) for id, spec in own.items()} for label, own in self._specs.items()}
        self._store = None if out is None else opened(out)
        keys = [key for own in self._keys.values() for key in own.values()]
        self._known = self._store.read(keys) if self._store else {}
        self._references = known_references(plan.checked, plan.ids)
        self._study = Shared(
            f"the problem {plan.checked.problem.name!r} in {plan.env}",
            _Study(plan.env, {**plan.arguments, "problem": plan.checked.problem}, plan.checked, SCRIPTED.get(plan.env)),
        )
        self._policies = {label: Shared(f"the policy {label!r}", policy, fresh=True) for label, policy in plan.policies.items()}
        self._given = set[_Batch]()
        self.batches = [*self._reference_batches(), *self._policy_batches()]

    def _policy_batches(self) -> list[_Batch]:
        """The batches of policies. What is left of an interrupted run is divided as it was, since batches are stored whole."""
        found = []
        for label in self.plan.policies:
            missing = [id for id in self.plan.ids if self._keys[label][id] not in self._known]
            starts = range(0, len(missing), self.plan.num_envs)
            found += [_Batch(label, label, tuple(missing[start : start + self.plan.num_envs])) for start in starts]
        return found

    def _reference_batches(self) -> list[_Batch]:
        """The batches of references that batches of policies need."""
        needed = {id for batch in self._policy_batches() for id in batch.ids}
        batches = missing_batches(self.plan.ids, self._references)
        return [_Batch(REFERENCES, None, tuple(ids)) for ids in batches if needed & {*ids} - {*self._references}]

    def shared(self) -> list[Shared]:
        """What its missing batches share."""
        labels = dict.fromkeys(batch.policy for batch in self.batches if batch.policy)
        return [self._study, *(self._policies[label] for label in labels)] if self.batches else []

    def begin(self) -> None:
        """Records that it begins, and warns if a resumed comparison would mix results of several kernels."""
        if self._store:
            keys = [key for own in self._keys.values() for key in own.values()]
            self._store.begin(self._setting, origin(self.plan, self._command), keys)
            kernels, missing = [result.kernels for result in self._known.values()], len(keys) - len(self._known)
            warn_of_others(self._store.path, kernels, missing, self.plan.checked.recipe.device)

    def known_steps(self) -> tuple[str, int]:
        """The first label that is not done, and the steps that need not be trained again."""
        label = self.batches[0].label if self.batches else [*self.plan.policies][-1]
        return label, self.plan.steps - self.plan.checked.recipe.train_steps * sum(len(batch.ids) for batch in self.batches)

    def job(self, place: int, batch: _Batch) -> Job | None:
        """The job of a batch, once; ``None`` if references that it needs are missing, or it has been given."""
        if batch in self._given or (batch.policy and not {*batch.ids} <= {*self._references}):
            return None
        self._given.add(batch)
        label = f"{batch.label} on the instances {', '.join(map(str, batch.ids))}"
        steps = len(batch.ids) * self.plan.checked.recipe.train_steps
        if batch.policy is None:
            return Job(place, label, steps, _train_references, (self._study,), (batch.ids,))
        shared, own = (self._study, self._policies[batch.policy]), {id: self._references[id] for id in batch.ids}
        return Job(place, label, steps, _train, shared, (batch.label, batch.ids, own))

    def take(self, batch: _Batch, value: Any) -> None:
        """Stores what a batch has given."""
        if batch.policy is None:
            self._references = keep_references(self.plan.checked, value, self._references)
            return
        if self._store:
            self._store.write([self._specs[batch.policy][id] for id in batch.ids], value)
        self._known |= {self._keys[batch.policy][result.instance]: result for result in value}

    def results(self) -> list[Result]:
        """All results, policy by policy, in the order of the instances."""
        return [self._known[key] for own in self._keys.values() for key in own.values()]


def origin(plan: Plan, command: str | None) -> dict[str, Any]:
    """What a comparison comes from, besides its setting."""
    address, smallest = plan.checked.problem.address, plan.smallest_difference
    known = {"seed": plan.seed, "command": command, "address": address, "smallest_difference": smallest}
    return known | ({"suite": plan.suite} if plan.suite else {})


def _specs(plan: Plan, setting: Mapping[str, Any], label: str, policy: Policy) -> dict[int, dict[str, Any]]:
    """All that each result depends on, by instance. Results of a policy that cannot be identified are never reused."""
    identity = plain(getattr(policy, "spec", None) or {"unknown": uuid.uuid4().hex})
    shared = {"setting": setting, "label": label, "policy": identity}
    return {id: {**shared, "instance": id} for id in plan.ids}
