"""A search for good settings of a network: generations of trials in a ProcessPoolExecutor, kept in a database."""

from __future__ import annotations

import random
import sqlite3
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from progress import report
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier

GENERATIONS = 10
TRIALS = 6

Settings = tuple[float, float, int]


def score(settings: Settings) -> float:
    rate, alpha, hidden = settings
    network = MLPClassifier((hidden,), learning_rate_init=rate, alpha=alpha, solver="sgd", max_iter=20, random_state=0)
    return float(cross_val_score(network, *load_iris(return_X_y=True), cv=3).mean())


def near(parent: Settings, chance: random.Random) -> Settings:
    rate, alpha, hidden = parent
    return rate * 2 ** chance.gauss(0, 1), alpha * 4 ** chance.gauss(0, 1), max(2, hidden + chance.randint(-4, 4))


def main() -> None:
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    chance = random.Random(0)
    best: tuple[float, Settings] = (0.0, (0.001, 1e-4, 8))
    database = sqlite3.connect("trials.sqlite")
    database.execute(
        "create table trials (number integer primary key, rate real, alpha real, hidden integer, score real)"
    )
    step = 0
    with ProcessPoolExecutor(2) as pool:
        for generation in range(GENERATIONS):
            trials = {
                pool.submit(score, settings): settings for settings in [near(best[1], chance) for _ in range(TRIALS)]
            }
            for _ in as_completed(trials):
                report(step, generation=generation)
                step += 1
            with database:
                for number, (trial, settings) in enumerate(trials.items(), generation * TRIALS):
                    database.execute("insert into trials values (?, ?, ?, ?, ?)", (number, *settings, trial.result()))
                    best = max(best, (trial.result(), settings))
            print(f"generation {generation}: {best[0]:.4f}")
    np.savetxt("best.txt", best[1])
    database.close()


if __name__ == "__main__":
    main()
