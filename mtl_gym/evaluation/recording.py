"""Records the episodes of policies, as data from which agents are trained offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gymnasium.wrappers import FlattenObservation

import mtl_gym
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import check_argument_names, keywords
from mtl_gym.evaluation.episodes import Episode, played
from mtl_gym.evaluation.player import Player
from mtl_gym.evaluation.recording_plans import Recording, plan_recording
from mtl_gym.policies.protocol import Policy
from mtl_gym.progress import progress_bar


def episodes(recording: Recording, advance: Callable[[str, int], None] = lambda label, steps: None) -> Iterator[list[Episode]]:
    """Plays every policy on every instance; yields the episodes batch by batch, so that no more than one batch is in memory.

    ``advance`` is called with the policy's label and the number of training steps just done.
    """
    for label, policy in recording.policies.items():
        for start in range(0, len(recording.ids), recording.num_envs):
            ids = recording.ids[start : start + recording.num_envs]
            envs = recording.vector(len(ids))
            player = Player(label, policy, envs, recording.observed[label])
            yield played(player, envs, ids, recording.noise, partial(advance, label))
            envs.close()


def record(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = LOSS_WEIGHTING,
    *,
    dataset: str,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    noise: float = 0.0,
    flat: bool = False,
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
    description: str | None = None,
    progress: bool | None = None,
    **arguments: Any,
) -> Path:
    """Records episodes of policies as a Minari data set, from which agents are trained offline (``docs/offline.md``).

    Every policy plays every instance. They share one environment: it has the arguments that the policies require, its reward is the
    environment's default unless given, and its observations are those that any of the policies reads, and those in ``observe``.
    Minari keeps data sets in ``MINARI_DATASETS_PATH``, by default ``~/.minari/datasets``; this one is there once it is complete.

    Args:
        policies: As in :func:`mtl_gym.compare`. Several make data of mixed quality.
        env: The environment's id.
        dataset: The id of the new data set, such as ``"digits/ppo-v0"``.
        instances: Number of instances, or their ids.
        seed: Selects the ids of a number n of instances: ``2^31 + seed * 10^4`` and the n - 1 following ones. They are for
            training: no comparison uses them.
        num_envs: Number of parallel trainings, and of episodes that are in memory at once.
        noise: Exploration around the policies' deterministic actions: the standard deviation of what is added to a ``Box``
            action, which is then clipped, in its own unit; or the probability with which a discrete action is replaced by a random
            valid one.
        flat: Whether observations are one ``Box``, in the order of ``gymnasium.spaces.flatten``, instead of a ``Dict``. d3rlpy
            needs it; TorchRL and Minari take both.
        author: Who made it, for a data set that is to be published.
        author_email: The author's address.
        code_permalink: A link to the code that made it.
        description: What it is; by default the policies, environment, problem and instances.
        progress: As in :func:`mtl_gym.compare`.
        arguments: The environment's arguments (``problem``, ``reward``, ``distribution`` ...).

    Returns:
        The data set's folder. ``minari.load_dataset(dataset)`` loads it, and its ``recover_environment()`` makes the environment.
        The metadata of an episode hold its ``policy``, and ``options``, with which ``reset`` starts its instance; its infos hold
        what ``info`` does, from ``reset`` on. The end of the training, and a divergence, are terminations.

    Raises:
        ModuleNotFoundError: If Minari or h5py is not installed.
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong, the data set exists, policies require different
            environments, or the problem cannot be found again, before anything is run; or if an answer of a policy is wrong.
        OSError: If the complete data set cannot be moved to its place; the error says where it is.

    Warns:
        RuntimeWarning: As :func:`mtl_gym.compare` does, of a policy's actions, weights and normalisation.
    """
    from mtl_gym.evaluation.minari_files import check_dataset, written

    check_dataset(dataset)
    check_argument_names(specification(env), arguments, own=keywords(record))
    planned = plan_recording(policies, env, instances=instances, seed=seed, num_envs=num_envs, noise=noise, **arguments)
    made = FlattenObservation(planned.make()) if flat else planned.make()
    told = {"author": author, "author_email": author_email, "code_permalink": code_permalink}
    metadata = {
        "algorithm_name": ", ".join(planned.policies),
        "description": planned.description if description is None else description,
        "requirements": [f"mtl-gym=={mtl_gym.__version__}"],
        **{name: value for name, value in told.items() if value is not None},
        "mtl_gym": planned.about,
    }
    with progress_bar(planned.steps, "starting", show=progress) as update:

        def tell(label: str, steps: int) -> None:
            update(description=f"{label} on {len(planned.ids)} instances", advance=steps)

        return written(dataset, made, episodes(planned, tell), metadata)
