"""PPO in one file, as people write it who own their training loop: episodes of `num_envs` environments, one update per rollout.

python ppo_script.py --vectorization vector_entry_point --updates 4
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import ClipAction, FlattenObservation, RecordEpisodeStatistics, vector
from torch import Tensor, nn
from torch.distributions import Independent, Normal

ENV_ID = "mtl_gym:mtl_gym/LossWeighting-v0"  # with the module, since processes that are spawned have not imported it
GAMMA, LAMBDA, CLIP, EPOCHS = 1.0, 0.95, 0.2, 4


def make_env(**arguments) -> gymnasium.Env:
    env = gymnasium.make(ENV_ID, **arguments)
    return RecordEpisodeStatistics(ClipAction(FlattenObservation(env)))


def make_envs(vectorization: str, num_envs: int, **arguments) -> VectorEnv:
    """Environments whose finished episodes are reset by the next step; `vector_entry_point`: all trainings in one batch."""
    if vectorization == "vector_entry_point":
        envs = gymnasium.make_vec(
            ENV_ID, num_envs=num_envs, vectorization_mode=vectorization, autoreset_mode="NextStep", **arguments
        )
        return vector.RecordEpisodeStatistics(vector.ClipAction(vector.FlattenObservation(envs)))
    thunks = [lambda: make_env(**arguments)] * num_envs
    if vectorization == "sync":
        return gymnasium.vector.SyncVectorEnv(thunks)
    return gymnasium.vector.AsyncVectorEnv(thunks, context="spawn")


class Agent(nn.Module):
    def __init__(self, size: int, num_actions: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, num_actions))
        self.log_std = nn.Parameter(torch.full((num_actions,), -1.0))

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations)[..., 0]

    def policy(self, observations: Tensor) -> Independent:
        return Independent(Normal(self.actor(observations), self.log_std.exp()), 1)


def advantages(rewards: Tensor, values: Tensor, dones: Tensor) -> Tensor:
    """Generalised advantages (T, N); `values` and `dones` (T + 1, N) are those of the observations before each step."""
    found, last = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for step in reversed(range(len(rewards))):
        goes_on = 1 - dones[step + 1]
        delta = rewards[step] + GAMMA * values[step + 1] * goes_on - values[step]
        found[step] = last = delta + GAMMA * LAMBDA * goes_on * last
    return found


def update(agent: Agent, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> None:
    seen, acted, old, gains, returns = batch
    normalised = (gains - gains.mean()) / (gains.std() + 1e-8)
    for _ in range(EPOCHS):
        ratio = (agent.policy(seen).log_prob(acted) - old).exp()
        loss = -torch.min(ratio * normalised, ratio.clamp(1 - CLIP, 1 + CLIP) * normalised).mean()
        loss = loss + 0.5 * (agent.value(seen) - returns).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()


class Episodes:
    """Returns `r`, lengths `l`, instances and actions of finished episodes."""

    def __init__(self, num_envs: int) -> None:
        self.found: list[dict] = []
        self.actions: list[list[np.ndarray]] = [[] for _ in range(num_envs)]

    def add(self, actions: np.ndarray, done: np.ndarray, infos: dict) -> None:
        """Adds a step; rows that were `done` before it were only reset by it, and their action was ignored."""
        for row, own in enumerate(actions):
            self.actions[row] = [] if done[row] else [*self.actions[row], own]
        for row in np.flatnonzero(infos.get("_episode", [])):
            statistics = {name: infos["episode"][name][row] for name in "rl"}
            self.found.append({**statistics, "instance": infos["instance"][row], "actions": self.actions[row]})


def train(envs: VectorEnv, updates: int, steps: int, seed: int = 0) -> list[dict]:
    """Trains for `updates` rollouts of `steps` steps; returns each episode's return, length, instance and actions."""
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    torch.manual_seed(seed)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3)
    observation, _ = envs.reset(seed=seed)
    done, episodes = np.zeros(envs.num_envs, dtype=bool), Episodes(envs.num_envs)
    for _ in range(updates):
        seen, acted, log_probs, rewards, dones = [], [], [], [], []
        for _ in range(steps):
            seen.append(torch.as_tensor(np.array(observation), dtype=torch.float32))
            dones.append(torch.as_tensor(done, dtype=torch.float32))
            with torch.no_grad():
                policy = agent.policy(seen[-1])
                acted.append(policy.sample())
                log_probs.append(policy.log_prob(acted[-1]))
            observation, reward, terminated, truncated, infos = envs.step(acted[-1].numpy())
            rewards.append(torch.as_tensor(reward, dtype=torch.float32))
            episodes.add(acted[-1].numpy(), done, infos)
            done = np.logical_or(terminated, truncated)
        seen.append(torch.as_tensor(np.array(observation), dtype=torch.float32))
        dones.append(torch.as_tensor(done, dtype=torch.float32))
        with torch.no_grad():
            values = agent.value(torch.stack(seen))
        gains = advantages(torch.stack(rewards), values, torch.stack(dones))
        real = torch.stack(dones[:-1]) == 0  # steps that only reset are not learned from
        batch = (torch.stack(seen[:-1]), torch.stack(acted), torch.stack(log_probs), gains, gains + values[:-1])
        update(agent, optimizer, tuple(part[real] for part in batch))
    return episodes.found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectorization", default="vector_entry_point", choices=["vector_entry_point", "sync", "async"])
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--updates", type=int, default=4)
    given = parser.parse_args()
    envs = make_envs(given.vectorization, given.num_envs, problem="digits", train_steps=60)
    episodes = train(envs, given.updates, steps=14)
    envs.close()
    for episode in episodes:
        print(f"return {episode['r']:.3f}, {episode['l']} decisions")


if __name__ == "__main__":
    main()
