"""The rule at which a search over many trainings ended."""

from __future__ import annotations

from mtl_gym.baselines.rule import Rule


class BestRule(Rule):
    """A rule with constants from a search over random problems: about one over the mean loss of the second epoch.

    So each loss is divided by about its mean of the second epoch, once that is known, rather than by its first value, which depends
    on chance; and the learning rate grows as losses fall, with about the root of the mean relative loss. The constants are those at
    which a short search by CMA-ES ended (``benchmarks/best_rule.py``): 2,592 trainings of six settings of ``teachers``, random
    networks that label random inputs, scored by metrics on *reward*. No shipped data took part. ``docs/transfer.md`` has what it
    reaches.

    Args:
        first: Coefficient of ``-log L_k(0)``, in [-2, 2]. Default: 1.037, searched.
        loss: That of ``-log(L_k / L_k(0))`` of each batch, in [-2, 2]. Default: 0.62, searched.
        base: That of ``-log(Lbase_k / L_k(0))``, mean loss of the second epoch, in [-2, 2]. Default: 0.62, searched.
        gap: That of the log of the improvable gap, in [-4, 4]. Default: 0.681, searched.
        level: Exponent of one over the mean relative loss, in [-2, 2]. Default: 0.482, searched; 0 makes weights average 1.
        decisions: About how often the gap is measured in a training, 2 or more. Default: 15, ours.

    Raises:
        ValueError, TypeError: If one of them is no number within its range.
    """

    def __init__(
        self,
        first: float = 1.037,
        loss: float = 0.62,
        base: float = 0.62,
        gap: float = 0.681,
        level: float = 0.482,
        decisions: int = 15,
    ) -> None:
        super().__init__(first=first, loss=loss, base=base, gap=gap, level=level, decisions=decisions)
