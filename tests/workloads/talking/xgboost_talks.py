"""XGBoost's own lines."""

import numpy as np
import xgboost as xgb

rng = np.random.default_rng(0)
train, test = (xgb.DMatrix(rng.normal(size=(80, 3)), rng.normal(size=80)) for _ in range(2))
xgb.train({"nthread": 1, "seed": 0}, train, 12, evals=[(train, "train"), (test, "eval")], verbose_eval=True)
