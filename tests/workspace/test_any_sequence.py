"""Random doings of the tree and of others around a cut, rolled back."""

from __future__ import annotations

import random
from typing import Any

import pytest
from workshop import State, Taken, Workshop

from criu_train.workspace.rollback import Rollback

pytestmark = pytest.mark.slow

OURS = ["a", "b", "c", "log", "old/a", "old/b", "d1", "d1/a", "d1/b", "d2", "d2/a", "d1/sub", "d1/sub/a"]
OTHERS = ["o1", "o2", "old/o1", "o3", "o3/x"]


def one_op(dice: random.Random, names: list[str], *, others: bool = False) -> list[Any]:
    path, text = dice.choice(names), dice.choice("xyzuvw") * dice.choice([1, 7, 100, 5000])
    verbs = ["write", "append", "append", "patch", "rewrite", "rename", "unlink", "mkdir", "rmtree"]
    if not others:
        verbs += ["symlink", "link", "chmod", "fifo", "hold", "map", "poke", "poke"]
    verb = dice.choice(verbs)
    match verb:
        case "write" | "append" | "rewrite" | "hold" | "map":
            return [verb, path, text]
        case "patch":
            return [verb, path, dice.randrange(50), text[:5]]
        case "rename" | "link":
            return [verb, path, dice.choice(names)]
        case "symlink":
            return [verb, path, dice.choice(["a", "nowhere", "d1"])]
        case "chmod":
            return [verb, path, dice.choice([0o600, 0o640, 0o755])]
        case "poke":
            return [verb, dice.randrange(8), text]
        case _:
            return [verb, path]


def apart(state: State) -> tuple[State, State]:
    """What is the tree's to change, and what is others'."""
    others = {path: what for path, what in state.items() if path.startswith(("o1", "o2", "o3", "old/o"))}
    return {path: what for path, what in state.items() if path not in others}, others


class Doings:
    """Random doings of both sides, the same for the same seed."""

    def __init__(self, shop: Workshop, seed: int) -> None:
        self.shop, self.dice = shop, random.Random(seed)
        shop.path("old").mkdir()
        for name in ("a", "log", "old/a", "old/keep"):
            shop.path(name).write_text(f"{name} from before\n" * self.dice.choice([1, 50]))

    def some(self, count: int, *, others: bool = True) -> None:
        for _ in range(count):
            self.shop.ours(*(one_op(self.dice, OURS) for _ in range(self.dice.randrange(1, 5))))
            if others and self.dice.random() < 0.4:
                self.shop.others(one_op(self.dice, OTHERS, others=True))

    def snapshot(self) -> Taken:
        draft = self.shop.precopy()
        self.some(self.dice.randrange(4))
        return self.shop.cut(draft)


def check_rolled_back(shop: Workshop, taken: Taken, before: State) -> Rollback:
    rollback = shop.roll_back(taken)
    ours, others = apart(shop.state())
    assert ours == apart(taken.state)[0]
    assert others == apart(before)[1]
    return rollback


@pytest.mark.parametrize("seed", range(12))
def test_a_rollback_makes_the_trees_files_what_they_were_at_the_cut_spares_others_and_undo_restores_all(
    shop: Workshop, seed: int
) -> None:
    doings = Doings(shop, seed)
    shop.start()
    doings.some(6)
    older = doings.snapshot()
    doings.some(8)
    newer = doings.snapshot()
    doings.some(8)
    shop.kill(at_rest=True)
    before = shop.state()
    for taken in (newer, older):
        check_rolled_back(shop, taken, before).undo()
        assert shop.state() == before


@pytest.mark.parametrize("seed", range(12))
def test_generations_of_restores_each_roll_back_exactly(shop: Workshop, seed: int) -> None:
    doings = Doings(shop, seed)
    shop.start()
    doings.some(6)
    first = doings.snapshot()
    newest = first
    for _ in range(2):
        doings.some(6)
        shop.kill(at_rest=True)
        check_rolled_back(shop, newest, shop.state()).commit()
        shop.start(newest.listing)
        doings.some(4)
        newest = doings.snapshot()
    doings.some(4)
    shop.kill(at_rest=True)
    before = shop.state()
    for taken in (newest, first):
        check_rolled_back(shop, taken, before).undo()
        assert shop.state() == before


@pytest.mark.parametrize("seed", range(12))
def test_what_the_tree_did_in_the_last_instant_is_rolled_back_without_a_journal(shop: Workshop, seed: int) -> None:
    doings = Doings(shop, seed)
    shop.start()
    doings.some(6)
    taken = doings.snapshot()
    shop.go_deaf()
    doings.some(6, others=False)
    shop.kill()
    before = shop.state()
    check_rolled_back(shop, taken, before).undo()
    assert shop.state() == before
