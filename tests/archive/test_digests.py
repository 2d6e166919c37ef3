"""Digests that are not taken twice are the same digests."""

from __future__ import annotations

import numpy as np
from archive_samples import captured, noise, pages
from blake3 import blake3

from criu_train.archive.digests import CapturedPages, Digests, Recall, digest_pages
from criu_train.store.seal import Bytes, Seal


class Counting(Seal):
    """Counts how many pages BLAKE3 had to look at."""

    def __init__(self) -> None:
        self.count = 0

    def hasher(self, data: Bytes = b"") -> blake3:
        self.count += 1
        return super().hasher(data)


def taken(images: dict[str, bytes], recall: Recall) -> tuple[Digests, list[bool], int]:
    """Digests, zeros, and how many pages BLAKE3 had to look at."""
    counting = Counting()
    found, zero = digest_pages(CapturedPages(captured(images)), lambda _: True, recall, counting)
    return found, zero.tolist(), counting.count


def test_pages_of_the_capture_before_are_recognised_wherever_they_lie_now() -> None:
    recall = Recall()
    _, _, first = taken({"pages-1.img": pages(1, 2, 0, 3) + noise("a", 50)}, recall)
    assert first == 53
    images = {"pages-1.img": pages(7) + noise("a", 50), "pages-2.img": pages(0, 3, 2, 8)}
    known, zero, looked_at = taken(images, recall)
    assert looked_at == 2
    afresh, zero_afresh, _ = taken(images, Recall())
    assert np.array_equal(known, afresh)
    assert zero == zero_afresh == [False] * 51 + [True] + [False] * 3


def test_only_the_newest_capture_is_remembered() -> None:
    recall = Recall()
    for kinds, expected in ((1, 2), 2), ((3,), 1), ((1, 2), 2):
        assert taken({"pages-1.img": pages(*kinds)}, recall)[2] == expected


def test_pages_without_a_digest_are_not_remembered() -> None:
    recall = Recall()
    digest_pages(CapturedPages(captured({"pages-1.img": pages(1, 2)})), lambda _: False, recall)
    assert taken({"pages-1.img": pages(1, 2)}, recall)[2] == 2
