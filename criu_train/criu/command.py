"""Command lines of CRIU, each option chosen on purpose.

Left out on purpose:

- ``--shell-job``: the root task leads a session of its own and has no terminal.
- ``--skip-in-flight``: a connection waiting in a listener's queue would be lost and its other end would wait for
  ever; without the switch that dump fails, says so, and the next one succeeds.
- ``--tcp-close``: one switch for all, but connections inside the tree must live.
- ``--evasive-devices``: every descriptor is opened inside the cell's mount namespace, so original paths work.
- ``--external``, ``--enable-external-masters``, ``--root``: they concern the dump of mount namespaces; CRIU runs
  inside the cell's, so there is none to dump.
- ``--force-irmap``: it searches the disk for watched directories while the tree is frozen.
- ``--track-mem``, ``--prev-images-dir``: need soft-dirty tracking, can't be streamed, and a chain of images is only
  as good as its weakest link.
"""

from __future__ import annotations

from pathlib import Path

from criu_train.criu.find import Criu

FREEZE_LIMIT_S = 30
GHOST_LIMIT = 64 << 30  # shared tensors are deleted files; CRIU's own default of 1 MiB is far too little


def dump_command(
    criu: Criu,
    *,
    root_pid: int,
    images: Path,
    log: Path,
    action_script: Path | None = None,
    leave_running: bool,
    lock_network: bool = True,
    terminal: str | None = None,
    stream: bool = False,
    ghost_limit: int = GHOST_LIMIT,
    freeze_limit_s: int = FREEZE_LIMIT_S,
) -> list[str]:
    """The dump of the tree below ``root_pid`` (as numbered where CRIU runs). Paths are absolute.

    ``lock_network``: needed where the tree holds TCP connections; it costs some 30 ms of pause, most of it in removing
    the rules again.
    ``terminal``: the slave of a pseudo-terminal whose master is not in the tree, as ``tty[rdev:dev]`` in hexadecimal.
    ``ghost_limit``: the largest deleted but open file that goes into the images, in bytes.
    ``freeze_limit_s``: how long the tasks may take to stop; one in an uninterruptible call to a disk can take a while.
    """
    return [
        *criu.command,
        "dump",
        *_common(criu, images, log),
        *("--tree", str(root_pid)),
        # Packets are held back while a connection is taken apart; a restore does as its images say.
        *("--network-lock", criu.network_lock if lock_network else "skip"),
        # Files that were unlinked while a link or a descriptor lives on (spawn-style semaphores).
        "--link-remap",
        *("--ghost-limit", str(ghost_limit)),
        *("--timeout", str(freeze_limit_s)),
        *(["--stream"] if stream else []),
        *(["--external", terminal] if terminal else []),
        *(["--leave-running"] if leave_running else []),
        *(["--action-script", _absolute(action_script)] if action_script else []),
    ]


def restore_command(
    criu: Criu,
    *,
    images: Path,
    log: Path,
    stream: bool = False,
    terminal: tuple[int, str] | None = None,
    action_script: Path | None = None,
) -> list[str]:
    """The restore of what lies in ``images``; CRIU leaves the root task to its own parent. Paths are absolute.

    ``terminal``: the descriptor that CRIU has been given for the terminal that was called so at the dump.
    ``stream``: take the images from whoever listens in the images directory.
    """
    return [
        *criu.command,
        "restore",
        *_common(criu, images, log),
        "--restore-detached",
        *(["--stream"] if stream else []),
        *(["--inherit-fd", f"fd[{terminal[0]}]:{terminal[1]}"] if terminal else []),
        *(["--action-script", _absolute(action_script)] if action_script else []),
    ]


def _common(criu: Criu, images: Path, log: Path) -> list[str]:
    return [
        # What a configuration file of the host adds would make dump and restore differ from what was probed.
        "--no-default-config",
        *("--images-dir", _absolute(images)),
        *("--log-file", _absolute(log)),
        "-v4",
        # Connections inside the tree come back established.
        "--tcp-established",
        # Datagram sockets connected to the outside (a system log) are connected again by path.
        "--ext-unix-sk",
        "--file-locks",
        # The cell stays in the supervisor's cgroup; what a resource manager gives the job is its business.
        "--manage-cgroups=ignore",
        # Libraries and programs must be the very same build, which a size alone does not prove.
        *("--file-validation", "buildid"),
        # Plugins of another version must not be loaded into a private CRIU.
        *(["--libdir", str(criu.plugins)] if criu.plugins else []),
    ]


def _absolute(path: Path) -> str:
    # CRIU runs after the mount namespace was entered, which changes the working directory.
    if not path.is_absolute():
        raise ValueError(f"a path given to CRIU must be absolute: {path}")
    return str(path)
