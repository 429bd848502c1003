import gymnasium
import numpy as np
import pytest

from mtl_gym.agents.leave_one_out import LeaveOneOut
from mtl_gym.agents.vec_env import VectorEnvAdapter


def adapter(num_envs=6, **arguments):
    given = {"problem": "quadratic", "distribution": "varied", "train_steps": 40, "steps_per_action": 10, **arguments}
    return VectorEnvAdapter(
        gymnasium.make_vec("mtl_gym/LossWeighting-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **given)
    )


def play(envs, steps, seed=0):
    """Steps of random actions: rewards (N,), dones and infos of each."""
    rng = np.random.default_rng(seed)
    shape = (envs.num_envs, *envs.action_space.shape)
    for _ in range(steps):
        yield envs.step(rng.uniform(-0.5, 0.5, shape).astype(np.float32))[1:]


def test_a_family_trains_the_same_instances_episode_after_episode():
    envs = LeaveOneOut(adapter(), 3)
    envs.seed(5)
    envs.reset()
    instances = [[info["instance"] for info in envs.venv.reset_infos]]
    for _, dones, infos in play(envs, 12):
        if dones.all():
            assert [info["instance"] for info in infos] == instances[-1]
            instances.append([info["instance"] for info in envs.venv.reset_infos])
    assert len(instances) == 4
    for row in instances:
        assert len(set(row[:3])) == len(set(row[3:])) == 1
        assert row[0] != row[3]
    assert len({row[0] for row in instances}) == 4


def test_rewards_are_what_a_row_gains_over_the_mean_of_its_siblings():
    plain, envs = adapter(), LeaveOneOut(adapter(), 3)
    envs.seed(5)
    plain.unwrapped._seeds = [5, 5, 5, 6, 6, 6]
    plain.reset(), envs.reset()
    for (own, _, own_infos), (relative, _, infos) in zip(play(plain, 8), play(envs, 8), strict=True):
        for row in range(6):
            family = [other for other in range(row // 3 * 3, row // 3 * 3 + 3) if other != row]
            assert relative[row] == pytest.approx(own[row] - own[family].mean(), abs=1e-6)
        assert [info.get("episode", {}).get("r") for info in infos] == [info.get("episode", {}).get("r") for info in own_infos]
    assert relative.dtype == np.float32


def test_rows_out_of_step_are_paid_nothing_until_they_meet_again():
    envs = LeaveOneOut(adapter(num_envs=3, lr=1.0, distribution="clean", action="weights", optimizer="sgd"), 3)
    envs.seed(0)
    envs.reset()
    calm, wild = np.ones(3, dtype=np.float32) * 1e-3, np.full(3, 1e6, dtype=np.float32)
    _, rewards, dones, infos = envs.step(np.stack([calm, calm, wild]))
    assert dones.tolist() == [False, False, True]
    assert infos[2]["diverged"]
    assert rewards[2] < -1  # together when it was taken: the penalty counts
    _, rewards, _, _ = envs.step(np.stack([calm, 2 * calm, calm]))
    assert rewards[2] == 0.0
    assert rewards[0] == -rewards[1] != 0.0


@pytest.mark.parametrize(("size", "error"), [(4, ValueError), (1, ValueError), (0, ValueError), (1.5, TypeError)])
def test_a_family_has_to_divide_the_rows(size, error):
    with pytest.raises(error, match="`rollouts_per_instance`"):
        LeaveOneOut(adapter(), size)


def test_two_seeds_draw_other_instances_and_one_seed_the_same():
    def drawn(seed):
        envs = LeaveOneOut(adapter(), 2)
        envs.seed(seed)
        envs.reset()
        return [info["instance"] for info in envs.venv.reset_infos]

    assert drawn(1) == drawn(1)
    assert drawn(1)[2:] == drawn(2)[:4]  # family f takes the stream seed + f
