"""LightGBM's own lines."""

import lightgbm as lgb
import numpy as np

rng = np.random.default_rng(0)
data = lgb.Dataset(rng.normal(size=(200, 3)), rng.normal(size=200))
parameters = {"objective": "regression", "num_threads": 1, "metric": ["l2", "l1"]}
lgb.train(parameters, data, 12, valid_sets=[data], valid_names=["training"], callbacks=[lgb.log_evaluation(1)])
