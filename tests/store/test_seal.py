"""The seal: what it hides, what it notices, and which files are keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criu_train.errors import UsageError
from criu_train.store.seal import PLAIN, Key, KeyedSeal, SealError, seal_of, told

SEAL = KeyedSeal(bytes(range(32)))


@given(data=st.binary(max_size=5000), about=st.text(max_size=50))
def test_what_is_sealed_opens_again_and_is_another_one_each_time(data: bytes, about: str) -> None:
    sealed = SEAL.seal(data, about)
    assert SEAL.unseal(sealed, about) == data
    assert len(sealed) == len(data) + SEAL.overhead
    assert SEAL.seal(data, about) != sealed


@settings(max_examples=300)
@given(data=st.binary(min_size=1, max_size=200), at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_changed_bit_opens(data: bytes, at: int, bit: int) -> None:
    sealed = bytearray(SEAL.seal(data, "here"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(SealError):
        SEAL.unseal(sealed, "here")


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(27), bytes(100)])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealError, match="here was not sealed with this key"):
        SEAL.unseal(sealed, "here")


def test_a_piece_that_is_put_elsewhere_or_into_another_store_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    key = Key.read(path)
    one, other = key.seal_for("one"), key.seal_for("other")
    sealed = one.seal(b"data", "here")
    for seal, about in ((one, "there"), (other, "here")):
        with pytest.raises(SealError):
            seal.unseal(sealed, about)
    assert one.vouch(b"manifest") != other.vouch(b"manifest") != PLAIN.vouch(b"manifest")
    assert one.hasher(b"page").digest() != other.hasher(b"page").digest() != PLAIN.hasher(b"page").digest()
    assert one.check != other.check


def test_another_process_gets_the_same_seal() -> None:
    again = seal_of(told(SEAL))
    assert again.unseal(SEAL.seal(b"data", "here"), "here") == b"data"
    assert seal_of(told(PLAIN)) is PLAIN


def test_a_key_does_not_show_in_what_is_printed_of_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef" * 2)
    path.chmod(0o600)
    assert "0123456789abcdef" not in repr(Key.read(path)) + repr(vars(SEAL).keys())


def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to user id 12345"):
        Key.read(path)


def test_a_fifo_is_no_key_and_nobody_waits_for_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(UsageError, match="no regular file"):
        Key.read(tmp_path / "key")
