"""Encryption at rest: what is written into a snapshot is sealed with the user's key, and its marker vouched for by it.

From the bytes of the key file and the store's id one secret is derived for each store (HKDF-SHA256, RFC 5869), and
from that a key for each purpose: AES-256-GCM (NIST SP 800-38D, a random nonce for each piece) for bytes; keyed BLAKE3
for the names of pages and blobs, which would tell otherwise who holds the same, and for the marker. Every piece is
bound to where it belongs, so one that is put elsewhere does not open.

A store has a seal from its beginning or never; ``PLAIN`` is that of one without a key.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from criu_train.errors import StoreError, UsageError
from criu_train.store.guard import owners

Bytes = bytes | bytearray | memoryview

_SECRET = 32
_NONCE, _TAG = 12, 16
_LEAST, _MOST = 32, 1 << 16  # bytes of a key file: less can be guessed, more is some other file
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SealError(StoreError):
    """Bytes that were not sealed with this key, or for this place, or have changed since."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was not sealed with this key, or has changed since", tip="an older snapshot is used instead"
        )


class Seal:
    """No seal: bytes lie in the store as they are."""

    is_plain = True
    overhead = 0  # bytes that sealing adds to a piece
    secret: bytes | None = None  # to tell another process of ours
    check: str | None = None  # by which the store knows its key again

    def seal(self, data: Bytes, about: str) -> Bytes:
        """``data`` as it is to be stored; ``about``: where it belongs."""
        return data

    def unseal(self, data: Bytes, about: str) -> Bytes:
        """What was sealed for the same place; raises SealError."""
        return data

    def hasher(self, data: Bytes = b"") -> blake3:
        """For the names of what is stored, which equal bytes share within one store."""
        return blake3(data)

    def vouch(self, manifest: bytes) -> str:
        """What the marker holds."""
        return blake3(manifest).hexdigest()

    def ready(self) -> Seal:
        """Itself; raises StoreError where the key is missing."""
        return self


PLAIN = Seal()


class KeyedSeal(Seal):
    """Sealed with a store's secret, 32 bytes; see ``Key.seal_for``."""

    is_plain = False
    overhead = _NONCE + _TAG

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only those with a key wait for it

        self.secret = secret
        self.check = _derive(secret, b"", "check").hex()
        self._cipher = AESGCM(_derive(secret, b"", "bytes"))
        self._naming, self._vouching = _derive(secret, b"", "names"), _derive(secret, b"", "marker")

    def seal(self, data: Bytes, about: str) -> Bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data, about.encode())

    def unseal(self, data: Bytes, about: str) -> Bytes:
        from cryptography.exceptions import InvalidTag

        view = memoryview(data)
        if len(view) < self.overhead:
            raise SealError(about)
        try:
            return self._cipher.decrypt(view[:_NONCE], view[_NONCE:], about.encode())
        except InvalidTag as error:
            raise SealError(about) from error

    def hasher(self, data: Bytes = b"") -> blake3:
        return blake3(data, key=self._naming)

    def vouch(self, manifest: bytes) -> str:
        return blake3(manifest, key=self._vouching).hexdigest()


class LockedSeal(Seal):
    """Of an encrypted store that was opened without its key: whatever needs the key raises StoreError."""

    is_plain = False

    def ready(self) -> Seal:
        raise StoreError("the store is encrypted", tip="name its key with --key-file, or in CRIU_TRAIN_KEY_FILE")


@dataclass(frozen=True)
class Key:
    """What a key file holds."""

    path: Path
    material: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Key:
        """Raises UsageError for a file that is no key, or that others can read."""
        make_one = f"make one: (umask 077; head -c 32 /dev/urandom >{path})"
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise UsageError(f"the key file {path} is no regular file", tip=make_one)
                if status.st_uid not in owners() | {0}:
                    raise UsageError(f"the key file {path} belongs to user id {status.st_uid}", tip=make_one)
                if status.st_mode & _OTHERS:
                    raise UsageError(f"others have rights to the key file {path}", tip=f"chmod 600 {path}")
                material = file.read(_MOST + 1)
        except OSError as error:
            raise UsageError(f"the key file {path} can't be read: {error.strerror}", tip=make_one) from error
        if not _LEAST <= len(material) <= _MOST:
            raise UsageError(
                f"the key file {path} holds {len(material)} bytes, which can't be a key: at least {_LEAST} random ones",
                tip=make_one,
            )
        return cls(path.absolute(), material)

    def seal_for(self, store_id: str) -> KeyedSeal:
        """The seal of one store: snapshots of another store with the same key do not open in it."""
        return KeyedSeal(_derive(self.material, store_id.encode(), "store"))


def seal_of(secret: str | None) -> Seal:
    """As another process of ours has told, in hexadecimal digits."""
    return PLAIN if secret is None else KeyedSeal(bytes.fromhex(secret))


def told(seal: Seal) -> str | None:
    """For ``seal_of`` in another process; never to be put where anybody else could read it."""
    return None if seal.secret is None else seal.secret.hex()


def read_sealed(snapshot: Path, name: str, seal: Seal) -> bytes:
    """A file of a snapshot as it was before it was sealed. Raises OSError, SealError."""
    return bytes(seal.unseal((snapshot / name).read_bytes(), place_of(snapshot, name)))


def place_of(snapshot: Path, name: str) -> str:
    """Where a file belongs: its snapshot's id and its name in it."""
    return f"{snapshot.name}/{name}"


def _derive(material: bytes, salt: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), _SECRET, salt or None, f"criu-train {purpose}".encode()).derive(material)
