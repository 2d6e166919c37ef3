"""Files in every form that trainings keep open, map, lock, watch, rotate or throw away."""

from __future__ import annotations

from zoo.program import Program, python, shell

FAMILY = "files"


def writing(name: str, what: str, *command: str, varying: tuple[str, ...] = ()) -> Program:
    return Program(name=name, what=what, family=FAMILY, command=command, lines=100, rest_s=0.4, varying=varying)


PROGRAMS: tuple[Program, ...] = (
    writing("hdf5", "HDF5 (h5py) in SWMR mode, a row a step", *python("hdf5.py", 100)),
    writing(
        "lmdb",
        "LMDB, written through its memory map",
        *python("lmdb_cache.py", 100),
        varying=("cache/lock.mdb",),  # PIDs of its readers
    ),
    writing("sqlite-wal", "sqlite in WAL mode, two connections", *python("sqlite_wal.py", 100)),
    writing("parquet", "Parquet (pyarrow), a row group a step, one writer", *python("parquet.py", 100)),
    writing("memmap", "np.memmap, read-only and writable", *python("memmaps.py", 100)),
    writing("rotating-logs", "logging with rotation, compression and buffers", *python("rotating_logs.py", 100)),
    writing("locks", "flock and lockf, held and contended for", *python("locks.py", 100)),
    writing("inotify", "a child that watches checkpoints come by inotify", *python("watcher.py", 100, 0)),
    writing("scratch", "scratch files in /dev/shm and /tmp, read back", *python("scratch.py", 100)),
    writing("streams", "gzip, zstd and xz streams open throughout", *python("streams.py", 100)),
    writing("nameless", "deleted files that are still open or mapped, a memfd", *python("nameless.py", 100)),
    writing("fifo", "two programs joined by named pipes", *shell("fifo.sh", 100)),
    writing("caches", "data mapped read-only, pickles and shelves rewritten", *python("caches.py", 100)),
    writing("checkpoints", "np.savez checkpoints by os.replace, rotated, linked", *python("checkpoints.py", 100)),
)
