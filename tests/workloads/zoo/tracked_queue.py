"""Metrics go to a tracking server from a background thread, by http.client, which reconnects when a call fails."""

from __future__ import annotations

import http.client
import json
import queue
import sys
import threading
import time

import numpy as np
from progress import report
from softmax import Softmax


class Sender(threading.Thread):
    """Sends what it finds in its queue, in order, and tries again over a new connection as often as it takes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.waiting: queue.Queue[dict[str, float] | None] = queue.Queue()
        self.stored: list[str] = []

    def run(self) -> None:
        while (record := self.waiting.get()) is not None:
            self.stored.append(self.send(json.dumps(record)))

    def send(self, body: str) -> str:
        for attempt in range(8):
            try:
                self.connection.request("POST", "/metrics", body, {"Content-Type": "application/json"})
                return str(json.loads(self.connection.getresponse().read())["stored"])
            except (http.client.HTTPException, OSError):
                self.connection.close()
                time.sleep(0.05 * 2**attempt)
        raise SystemExit("the tracking server is gone")


sender = Sender(int(sys.argv[2]))
sender.start()
model = Softmax()
for step in range(int(sys.argv[1])):
    loss = model.step()
    sender.waiting.put({"step": step, "loss": loss})
    report(step, loss=loss)
sender.waiting.put(None)
sender.join()
print(len(sender.stored), "records stored, the last one as", sender.stored[-1])
np.savetxt("stored.txt", sender.stored, fmt="%s")
np.save("weights.npy", model.weights)
