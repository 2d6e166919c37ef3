"""The small tree that the probe dumps and restores: standard library only, run as a file inside the probe's cell.

Two processes and three threads. Each line of the log is the work of all of them: a thread sends a number to the child
over loopback TCP, the child sends back the next one and posts two semaphores (one with a name, one deleted right after
it was made), the main thread appends the number to a file. A number that was lost on the way stops the log.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # what multiprocessing.Semaphore is made of, without its helper process
import os
import queue
import socket
import sys
import threading
import time

TICK_S = 0.01
PATIENCE_S = 5.0
_SEMAPHORE = 1


def _semaphore(name: str, *, unlink: bool) -> _multiprocessing.SemLock:
    return _multiprocessing.SemLock(_SEMAPHORE, 0, 1, name, unlink)


def _answer(port: int, semaphores: list[_multiprocessing.SemLock]) -> None:
    """The child: a number comes in, the next one goes out."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        while number := link.recv(8):
            link.sendall((int.from_bytes(number, "big") + 1).to_bytes(8, "big"))
            for semaphore in semaphores:
                semaphore.release()


def _ask(link: socket.socket, semaphores: list[_multiprocessing.SemLock], answers: queue.Queue[int]) -> None:
    """The thread: from one number to the next, by way of the child."""
    number = 0
    while True:
        link.sendall(number.to_bytes(8, "big"))
        number = int.from_bytes(link.recv(8), "big")
        if not all(semaphore.acquire(True, PATIENCE_S) for semaphore in semaphores):
            os._exit(1)
        answers.put(number)
        time.sleep(TICK_S)


def main(log_path: str) -> None:
    """Appends 1, 2, 3, … to the log until it is killed."""
    semaphores = [_semaphore("/named", unlink=False), _semaphore("/deleted", unlink=True)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if os.fork() == 0:
            listener_port = listener.getsockname()[1]
            listener.close()
            return _answer(listener_port, semaphores)
        link, _ = listener.accept()
    answers: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_ask, args=(link, semaphores, answers), daemon=True).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        os.write(log, f"{answers.get(timeout=2 * PATIENCE_S)}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
