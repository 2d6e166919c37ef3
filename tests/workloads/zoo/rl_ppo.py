"""PPO learns to balance a pole in environments that are processes of their own (Stable-Baselines3)."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from progress import report
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv


class Report(BaseCallback):
    """One line for each few steps of all environments."""

    def _on_step(self) -> bool:
        if self.n_calls % 32 == 0:
            lengths = [episode["l"] for episode in self.model.ep_info_buffer]
            report(self.n_calls, episodes=len(lengths), length=float(np.mean(lengths)) if lengths else 0.0)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=int, default=3)
    parser.add_argument("--context", choices=["fork", "spawn", "forkserver"], default="forkserver")
    options = parser.parse_args()
    torch.set_num_threads(1)
    games = make_vec_env(
        "CartPole-v1",
        n_envs=options.environments,
        seed=0,
        vec_env_cls=SubprocVecEnv,
        vec_env_kwargs={"start_method": options.context},
    )
    model = PPO("MlpPolicy", games, n_steps=128, batch_size=64, learning_rate=1e-3, seed=0, device="cpu")
    keep = CheckpointCallback(save_freq=512, save_path="checkpoints", name_prefix="ppo")
    model.learn(total_timesteps=2560 * options.environments, callback=[Report(), keep])
    mean, spread = evaluate_policy(model, games, n_eval_episodes=6)
    print(f"reward {mean:.2f} +- {spread:.2f}")
    torch.save(model.policy.state_dict(), "weights.pt")
    games.close()


if __name__ == "__main__":
    main()
