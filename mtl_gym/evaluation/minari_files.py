"""Minari data sets of episodes: written completely, or not at all."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Dict

from mtl_gym.checks import should
from mtl_gym.evaluation.episodes import Episode

_SETS = ("author", "author_email")
"""Metadata that Minari keeps as sets."""


def check_dataset(id: str) -> None:
    """Checks that a data set can be written under an id.

    Raises:
        ModuleNotFoundError: If Minari or h5py is not installed.
        TypeError, ValueError: If it is no id of a data set with a version, or there is one with that id.
    """
    for package in ("minari", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f'`record` needs the package {package!r}, which is not installed. Install it with: pip install "mtl-gym[minari]"'
            )
    from minari.dataset.minari_dataset import parse_dataset_id

    if not isinstance(id, str):
        raise TypeError(should("dataset", "be a text", id))
    try:
        parse_dataset_id(id)
    except (ValueError, TypeError):  # the latter without a version
        condition = "be namespace/name-v0: letters, digits, - and _, at least two of them in a namespace, and a version"
        raise ValueError(should("dataset", condition, id)) from None
    if _folder(id).exists():
        raise ValueError(_taken(id))


def _folder(id: str) -> Path:
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(id))


def _taken(id: str) -> str:
    remedy = "Take the next version, or delete that one: minari.delete_dataset."
    return should("dataset", f"be new; there is one in {_folder(id)}", id, remedy)


def written(id: str, env: gymnasium.Env[Any, Any], batches: Iterable[list[Episode]], metadata: Mapping[str, Any]) -> Path:
    """Writes a data set, batch by batch, in a hidden folder that becomes the data set's once it is complete; returns that folder.

    Its namespace is made before the first batch, and stays if there is an error.

    Args:
        id: The data set's.
        env: The environment that :meth:`minari.MinariDataset.recover_environment` makes; observations are in the form of its space.
        batches: The episodes.
        metadata: Of the data set, JSON-plain.

    Raises:
        ValueError: If its namespace cannot be made, or another process has written a data set of that id meanwhile.
        OSError: If the complete folder cannot become the data set's; it is kept.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    told = {name: {value} if name in _SETS else value for name, value in metadata.items()}
    folder = _folder(id)
    _make_namespace(id)
    with ExitStack() as stack:
        hidden = tempfile.mkdtemp(prefix=".recording-", dir=_folder(""))  # Minari does not list hidden folders
        stack.callback(shutil.rmtree, hidden)
        data = Path(hidden, "whole", "data")
        data.parent.mkdir()
        storage = MinariStorage.new(data, env.observation_space, env.action_space, env.spec, "hdf5")
        storage.update_metadata({"dataset_id": id, "minari_version": minari.__version__, **told})
        count = 0
        for episodes in batches:
            storage.update_episodes([_buffer(episode, env.observation_space) for episode in episodes])
            storage.update_episode_metadata([{"policy": own.policy} for own in episodes], range(count, count + len(episodes)))
            count += len(episodes)
        try:
            data.parent.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ValueError(_taken(id)) from error
            stack.pop_all()  # what took hours to record is not deleted
            raise OSError(f"The complete data set could not be moved to {folder}: {error}. It is kept in {data.parent}.") from error
    return folder


def _buffer(episode: Episode, space: gymnasium.Space[Any]) -> Any:
    from minari.data_collector import EpisodeBuffer

    whole: Any = episode.observations
    return EpisodeBuffer(
        options={"instance": episode.instance},
        observations=whole if isinstance(space, Dict) else flattened(whole),
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=episode.truncations,
        infos=episode.infos,
    )


def flattened(observations: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Observations (T, length) by name as one array, in the order of ``gymnasium.spaces.flatten``: that of their names."""
    return np.concatenate([observations[name] for name in sorted(observations)], axis=1)


def _make_namespace(id: str) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace

    namespace = parse_dataset_id(id)[0]
    if namespace is None:
        return
    try:
        with suppress(ValueError):  # there is one, perhaps since just now
            create_namespace(namespace)
    except OSError as error:
        condition = f"have a namespace that is a folder, or can be made one ({error})"
        raise ValueError(should("dataset", condition, id, f"Take another namespace, or move {_folder(namespace)} away.")) from error
