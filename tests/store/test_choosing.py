"""Which snapshot people mean by what they write."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_samples import add

from criu_train.errors import UsageError
from criu_train.store.store import Store

STEPS = (100, 200, 300, 300, 400)
LOSSES = (0.5, 0.2, 0.4, 0.2, 0.3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Snapshots 1 to 5 of the current run, and one of an earlier run that is better than all of them."""
    store = Store.create_or_open(tmp_path / "store")
    add(store, run="an earlier run", step=100_000, metrics={"train_loss": 0.0, "accuracy": 1.0})
    run = store.begin_run(("python", "train.py"), "/home/me/job").id
    for step, loss in zip(STEPS, LOSSES, strict=True):
        add(store, run=run, step=step, metrics={"train_loss": loss, "accuracy": 1 - loss, "val/loss": 1 - loss})
    return store


def number(store: Store, text: str) -> int:
    """How the snapshots of the run are counted here."""
    return store.find(text).sequence - 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("6", 5),
        ("latest", 5),
        ("latest~0", 5),
        ("latest~4", 1),
        ("@step:100", 1),
        ("@step:299", 2),
        ("@step:300", 4),  # of two the newer one
        ("@step:1000000", 5),
        ("@best:train_loss", 4),
        ("@best:Train_Loss", 4),
        ("@best:accuracy", 4),
        ("@best:val/loss", 1),
    ],
)
def test_a_snapshot_is_meant_by_number_age_step_or_metric(store: Store, text: str, meant: int) -> None:
    assert number(store, text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("latest~5", "there are only 5 complete snapshots"),
        ("@step:99", "no complete snapshot is of step 99 or before"),
        ("@best:loss", "could be any of train_loss, val/loss"),
        ("@best:perplexity", "has a metric 'perplexity'"),
        ("@step:x", "there is no snapshot '@step:x'"),
        ("latest~", "there is no snapshot 'latest~'"),
        ("", "there is no snapshot ''"),
        ("99", "there is no snapshot '99'"),
        ("20", "could be any of 6 snapshots"),
    ],
)
def test_what_means_none_or_several_is_refused_with_what_there_is(store: Store, text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        store.find(text)
    assert why in str(refused.value)
    assert refused.value.tip


def test_an_abandoned_or_damaged_snapshot_is_no_choice_by_step_or_metric(store: Store) -> None:
    store.abandon_after(store.find("4").id)
    assert (number(store, "latest"), number(store, "@step:1000"), number(store, "@best:train_loss")) == (3, 3, 2)
    (store.find("3").path / "COMPLETE").unlink()
    assert (number(store, "@step:250"), number(store, "@best:train_loss")) == (1, 3)


def test_where_no_snapshot_knows_its_step_it_is_told_how_to_find_it(tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "store")
    add(store)
    for text in ("@step:5", "@best:loss"):
        with pytest.raises(UsageError) as refused:
            store.find(text)
        assert "--progress-regex" in refused.value.tip
