"""Problems: tasks, four disjoint splits and a network."""

from __future__ import annotations

import functools
import hashlib
import json
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mtl_gym.checks import choose, positive_int, printable, sequence, should
from mtl_gym.problems.arrays import from_arrays
from mtl_gym.problems.data_checks import check_functions, check_labels, check_pool, check_samples, check_tasks, lacking
from mtl_gym.problems.encodings import Encoding, decode, encode
from mtl_gym.problems.families import Family, check_family
from mtl_gym.problems.frames import from_frame
from mtl_gym.problems.inputs import parts, shapes
from mtl_gym.problems.modules import ModuleFactory
from mtl_gym.problems.pools import Pool as Pool
from mtl_gym.problems.rows import Defaults
from mtl_gym.problems.splits import SPLITS as SPLITS, Split as Split
from mtl_gym.problems.tables import table
from mtl_gym.problems.tasks import Task as Task

Kind = TypeVar("Kind")


class Problem:
    """Data in four splits, K tasks and a network; immutable and shared by everything that uses it.

    Args:
        name: Its name; part of every instance's seed.
        tasks: The K tasks. Neighbouring tasks with the same loss are computed together, which is faster.
        splits: ``train``, ``meta``, ``reward`` and ``test``: disjoint samples, which is not checked.
        network: Row of ``mtl_gym.models.NETWORKS``, or a function that takes the problem and ``hidden_sizes`` and returns a
            :class:`~mtl_gym.models.base.Model`. ``"mlp"`` if neither it nor ``model`` is given.
        model: A function that makes your own ``torch.nn.Module`` with its initial weights, called once for every training. Its
            ``forward(inputs)`` takes a batch of inputs, as the splits have them, and returns outputs by task: a dict by task name
            or a list in the order of the tasks, each (B, outputs, *S) or, with one output, (B, *S); or a tensor (B, O, *S) of all
            of them side by side.
        shared: With ``model``, names of its parameters that all tasks share, or what they begin with; all others are the heads'.
        vectorize: With ``model``, how replicas are computed: ``"vmap"``, ``"loop"``, or ``"auto"``: ``vmap`` where it agrees with
            a loop.
        defaults: Learning rate, batch size, length and widths of its trainings, unless others are given there, as
            ``mtl_gym.Defaults(lr=1e-3, train_steps=600)``.
        version: To be increased whenever data, tasks or splits change.
        pool: The samples from which instances may draw their own splits; ``splits`` are then ``pool.splits(pool.rows)``.
            ``None`` if the four splits are fixed.
        family: What makes the data of each instance, where every instance has data of its own; ``splits`` are then an example.

    Raises:
        TypeError: If an argument is of another type, or ``model`` makes no module.
        ValueError: If there are no tasks, a split is missing or empty, inputs or labels are infinite, labels do not match the tasks
            or their metrics, the pool or the family does not match the splits, both are given, the network is unknown, both
            ``network`` and ``model`` are given, or modules are not alike or have parts in common.
    """

    def __init__(
        self,
        name: str,
        tasks: Sequence[Task],
        splits: Mapping[str, Split],
        *,
        network: str | Callable[..., Any] | None = None,
        model: Callable[[], nn.Module] | None = None,
        shared: str | Sequence[str] = "trunk",
        vectorize: str = "auto",
        defaults: Defaults | None = None,
        version: int = 0,
        pool: Pool | None = None,
        family: Family | None = None,
    ) -> None:
        self.name = printable("name", name)
        self.tasks = tuple(_instance("tasks", task, Task) for task in sequence("tasks", tasks))
        if not isinstance(splits, Mapping):
            raise TypeError(should("splits", "be a mapping from names to splits", splits))
        self.network = _network(network, model, shared, vectorize)
        whole = isinstance(self.network, ModuleFactory)  # whether whole numbers reach the network as they are
        self.splits = {name: _on_cpu(name, split, whole=whole) for name, split in splits.items()}
        given = Defaults() if defaults is None else _instance("defaults", defaults, Defaults)
        self.defaults = _without_widths(given) if whole else given
        self.version = positive_int("version", version, least=0)
        self.pool = None if pool is None else _whole_or_not(_instance("pool", pool, Pool), whole=whole)
        self.family = None if family is None else _instance("family", family, Family)
        self.found_by: tuple[Callable[..., Problem], tuple[str, ...]] | None = None
        """A function and its arguments that load it; ``None`` if only its data identifies it."""
        self.encoding: Encoding | None = None
        """What :meth:`from_arrays` or :meth:`from_frame` has learnt from *train*; ``None`` for other problems."""
        check_tasks(self.tasks, self.splits)
        check_samples(self.tasks, self._all_samples())
        self.output_slices = _slices([task.outputs for task in self.tasks])
        self.target_slices = _slices([task.target_channels for task in self.tasks])
        check_labels(self.tasks, self.target_slices, self._all_samples())
        check_functions(self.tasks, self.target_slices, self.splits["train"])
        if self.pool is not None:
            check_pool(self.pool, self.tasks, self.target_slices, self.splits)
        if self.family is not None:
            if self.pool is not None:
                raise ValueError(should("pool", "be left out where there is a `family`, whose instances draw all their data", pool))
            check_family(self.family, self.splits, lambda samples: check_labels(self.tasks, self.target_slices, samples))
        self.complete = not any(bool(torch.isnan(split.targets).any()) for split in self._splits_and_pool(SPLITS[:3]))
        """Whether the samples on which losses are computed, in any split that an instance may draw, have all labels."""

    from_arrays = classmethod(from_arrays)
    from_frame = classmethod(from_frame)
    encode = encode
    decode = decode

    def _all_samples(self) -> dict[str, Split]:
        """The splits, *train* first, and the pool's samples, by their names in errors."""
        pool = {} if self.pool is None else {"pool.samples": self.pool.samples}
        return {f"splits[{name!r}]": self.splits[name] for name in {"train": None, **self.splits}} | pool

    def _splits_and_pool(self, names: Sequence[str]) -> list[Split]:
        return [self.splits[name] for name in names] + ([] if self.pool is None else [self.pool.samples])

    def check_labelled(self, split: str, tasks: Collection[str]) -> None:
        """Raises a ValueError if a split has no label of one of these tasks; see :meth:`lacking`."""
        for name, label in self.lacking(split, self.splits[split].targets).items():
            if name in tasks:
                raise ValueError(should(f"splits[{split!r}].targets", f"contain {label}", "NaN"))

    def lacking(self, split: str, targets: Tensor) -> dict[str, str]:
        """The tasks without a label in targets (n, T, *S); see :func:`~mtl_gym.problems.data_checks.lacking`."""
        return lacking(split, self.tasks, self.target_slices, targets)

    @functools.cached_property
    def identity(self) -> list[str | int]:
        """Identifies it: name and version, and for a problem that is not in the table also a hash of its data and its model.

        Raises a ValueError if a function of its own (model, loss, metric or family) refers to values that cannot be described.
        """
        if self.address is not None and ":" not in self.address:
            return [self.name, self.version]
        digest = hashlib.sha256(f"({_listed([task.identity for task in self.tasks])}, {self.network_name!r})".encode())
        if isinstance(self.network, ModuleFactory):
            digest.update(json.dumps(self.network.content).encode())
        for split in self._splits_and_pool(SPLITS):
            names = [] if isinstance(split.inputs, Tensor) else [*split.inputs]
            for tensor in (*parts(split.inputs), split.targets):
                digest.update(repr((tuple(tensor.shape), tensor.dtype, *names)).encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        if self.pool is not None:
            digest.update(repr(self.pool.division).encode())
        if self.family is not None:
            digest.update(json.dumps(self.family.content).encode())
        return [self.name, self.version, digest.hexdigest()]

    @property
    def address(self) -> str | None:
        """The text by which :func:`mtl_gym.load_problem` finds it: a name or ``file.py:function``; ``None`` if it cannot."""
        return self.found_by[1][0] if self.found_by else None

    @property
    def network_name(self) -> str:
        """The row of ``NETWORKS``, or the module and name of its function."""
        if isinstance(self.network, str):
            return self.network
        factory = self.network.make if isinstance(self.network, ModuleFactory) else self.network
        factory = factory.func if isinstance(factory, functools.partial) else factory
        return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"

    @property
    def num_tasks(self) -> int:
        """K."""
        return len(self.tasks)

    @property
    def outputs(self) -> int:
        """Output channels of all heads together."""
        return sum(task.outputs for task in self.tasks)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample; of inputs by name, there is none (a ValueError)."""
        inputs = self.splits["train"].inputs
        if not isinstance(inputs, Tensor):
            raise ValueError(should("inputs", "be a single tensor here", shapes(inputs)))
        return tuple(inputs.shape[1:])

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        own = self.network
        chosen = (
            {"model": own.make, "shared": own.shared, "vectorize": own.vectorize}
            if isinstance(own, ModuleFactory)
            else {"network": own}
        )
        make = functools.partial(
            Problem, **chosen, defaults=self.defaults, version=self.version, pool=self.pool, family=self.family
        )
        return self.found_by or (make, (self.name, self.tasks, self.splits), {"encoding": self.encoding})

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, tasks={[task.name for task in self.tasks]})"

    def _repr_html_(self) -> str:
        return table(self)


def _network(
    network: str | Callable[..., Any] | None, model: Callable[[], nn.Module] | None, shared: str | Sequence[str], vectorize: str
) -> str | Callable[..., Any] | ModuleFactory:
    """The name, if it is a row of ``NETWORKS``, whose package knows this one; the function; or what makes one's own modules."""
    if model is None:
        if shared != "trunk" or vectorize != "auto":
            name, value = ("shared", shared) if shared != "trunk" else ("vectorize", vectorize)
            raise ValueError(should(name, "be left out where there is no `model`", value))
        if not callable(network):
            choose("network", network := network or "mlp", pkgutil.resolve_name("mtl_gym.models:NETWORKS"))
        return network
    if network is not None:
        raise ValueError(should("network", "be left out where a `model` is given", network))
    return ModuleFactory(model, shared, vectorize)  # type: ignore[arg-type]  # which makes a tuple of names


def _without_widths(defaults: Defaults | None) -> Defaults:
    """Defaults of a problem whose model has widths of its own."""
    given = defaults or Defaults()
    if given.hidden_sizes not in ((), Defaults().hidden_sizes):
        raise ValueError(should("defaults.hidden_sizes", "be left out: the model has its own widths", given.hidden_sizes))
    return replace(given, hidden_sizes=())


def _on_cpu(name: str, split: Split, *, whole: bool) -> Split:
    own = _instance(f"splits[{name!r}]", split, Split)
    if not whole and not isinstance(own.inputs, Tensor):
        raise TypeError(should(f"splits[{name!r}].inputs", "be a single array without a `model` of your own", [*own.inputs]))
    return (own if whole else own.of_numbers()).to(torch.device("cpu"))


def _whole_or_not(pool: Pool, *, whole: bool) -> Pool:
    return pool if whole or pool.samples.is_numbers else replace(pool, samples=pool.samples.of_numbers())


def _instance(name: str, value: Any, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(should(name, f"be a {kind.__name__}", type(value).__name__))
    return value


def _listed(items: Sequence[str]) -> str:
    """Texts as those of a tuple."""
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _slices(widths: Sequence[int]) -> tuple[slice, ...]:
    ends = list(accumulate(widths))
    return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))
