"""Durations, sizes and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from criu_train.units import ago, format_duration, format_size, parse_duration, parse_size, utc_now_iso


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("45", 45), ("1.5h", 5400), (" 2 H ", 7200), ("0", 0)],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "5x", "5ms", "1h30m", "nan", "inf", "1e3", "٣s", "5 s s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 90s, 30m, 2h or 1d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123), ("500M", 500 << 20), ("2G", 2 << 30), ("1GiB", 1 << 30), ("1GB", 10**9), ("64k", 65536),
        ("1T", 1 << 40), ("1.5K", 1536), ("7B", 7),
    ],
)  # fmt: skip
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1GiBs", "0x10"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write it like 500M, 2G or 1GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 ms"), (0.0032, "3.2 ms"), (0.9994, "999.4 ms"), (0.9999, "1.00 s"), (1.5, "1.50 s"), (9.999, "10 s"),
        (59.4, "59 s"), (59.6, "1m"), (125, "2m 5s"), (1800, "30m"), (3599.9, "1h"), (12000, "3h 20m"),
        (187_200, "2d 4h"), (-90, "-1m 30s"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_with_the_figures_that_matter(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), ((1 << 20) - 1, "1.0 MiB"),
        (23 << 30, "23.0 GiB"), (3 << 40, "3.0 TiB"), (5000 << 40, "5000.0 TiB"),
    ],
)  # fmt: skip
def test_a_size_is_shown_in_the_largest_fitting_unit(size: int, text: str) -> None:
    assert format_size(size) == text


def test_the_time_now_is_iso_8601_in_utc() -> None:
    now = datetime.fromisoformat(utc_now_iso())
    assert now.tzinfo == UTC
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"), (4, "just now"), (59, "59 seconds ago"), (60, "1 minute ago"), (7199, "1 hour ago"),
        (90_000, "1 day ago"), (3 * 86400, "3 days ago"), (-4, "just now"), (-7200, "in 2 hours"),
    ],
)  # fmt: skip
def test_a_time_is_told_by_its_distance_from_now(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 21, 20, 45, 12, tzinfo=UTC)
    assert ago((now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), now=now) == text
