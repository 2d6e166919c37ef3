"""A table of values learns to cross a frozen lake (Gymnasium), one line for each few games."""

from __future__ import annotations

import pickle
from collections import defaultdict

import gymnasium as gym
import numpy as np
from progress import report

GAMES = 4000
EVERY = 40


def main() -> None:
    lake = gym.wrappers.RecordEpisodeStatistics(gym.make("FrozenLake-v1", is_slippery=True), buffer_length=200)
    lake.action_space.seed(0)
    chance = np.random.default_rng(0)
    values: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))
    for game in range(GAMES):
        state, _ = lake.reset(seed=0 if game == 0 else None)
        over = False
        while not over:
            explores = chance.random() < max(0.02, 1 - game / 2000)
            action = lake.action_space.sample() if explores else int(values[state].argmax())
            following, reward, ended, cut, _ = lake.step(action)
            target = reward + 0.98 * values[following].max() * (not ended)
            values[state][action] += 0.1 * (target - values[state][action])
            state, over = following, ended or cut
        if game % EVERY == EVERY - 1:
            report(game, reward=float(np.mean(lake.return_queue)), length=float(np.mean(lake.length_queue)))
        if game % 1000 == 999:
            print(f"game {game}: {np.mean(lake.return_queue):.3f} of the last games won")
            with open("values.pickle", "wb") as file:
                pickle.dump({state: row.tolist() for state, row in sorted(values.items())}, file)
    lake.close()


if __name__ == "__main__":
    main()
