"""Nothing has changed: trajectories, comparisons and pretrained agents are bit for bit what was recorded."""

from pathlib import Path

import pytest

from tests import goldens

KERNELS, RECORDED = goldens.read(Path(__file__).with_name("goldens.json"))


@pytest.mark.parametrize("case", goldens.cases(), ids=str)
def test_golden(case):
    if goldens.kernels() != KERNELS:
        pytest.skip(f"recorded with other kernels: {KERNELS}")
    assert goldens.differing(RECORDED[str(case)], goldens.trajectories(case)) == []


def test_every_case_is_recorded():
    assert [str(case) for case in goldens.cases()] == list(RECORDED)
