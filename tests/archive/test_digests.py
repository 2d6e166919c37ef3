"""Digests that are not taken twice are the same digests."""

from __future__ import annotations

import numpy as np
import pytest
from archive_samples import captured, noise, pages

from criu_train.archive import digests
from criu_train.archive.digests import CapturedPages, Digests, Recall, digest_pages


def taken(images: dict[str, bytes], recall: Recall, monkeypatch: pytest.MonkeyPatch) -> tuple[Digests, list[bool], int]:
    """Digests, zeros, and how many pages BLAKE3 had to look at."""
    count = 0

    def counting(data: memoryview) -> object:
        nonlocal count
        count += 1
        return real(data)

    real = digests.blake3
    with monkeypatch.context() as patch:
        patch.setattr(digests, "blake3", counting)
        found, zero = digest_pages(CapturedPages(captured(images)), lambda _: True, recall)
    return found, zero.tolist(), count


def test_pages_of_the_capture_before_are_recognised_wherever_they_lie_now(monkeypatch: pytest.MonkeyPatch) -> None:
    recall = Recall()
    _, _, first = taken({"pages-1.img": pages(1, 2, 0, 3) + noise("a", 50)}, recall, monkeypatch)
    assert first == 53
    images = {"pages-1.img": pages(7) + noise("a", 50), "pages-2.img": pages(0, 3, 2, 8)}
    known, zero, looked_at = taken(images, recall, monkeypatch)
    assert looked_at == 2
    afresh, zero_afresh, _ = taken(images, Recall(), monkeypatch)
    assert np.array_equal(known, afresh)
    assert zero == zero_afresh == [False] * 51 + [True] + [False] * 3


def test_only_the_newest_capture_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    recall = Recall()
    for kinds, expected in ((1, 2), 2), ((3,), 1), ((1, 2), 2):
        assert taken({"pages-1.img": pages(*kinds)}, recall, monkeypatch)[2] == expected


def test_pages_without_a_digest_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    recall = Recall()
    digest_pages(CapturedPages(captured({"pages-1.img": pages(1, 2)})), lambda _: False, recall)
    assert taken({"pages-1.img": pages(1, 2)}, recall, monkeypatch)[2] == 2
