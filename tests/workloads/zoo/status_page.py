"""A web server in a thread shows how far the training is, another process serves its files; both are asked."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from progress import report
from softmax import Softmax

state: dict[str, float] = {}


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(state).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=page.serve_forever, daemon=True).start()
files = subprocess.Popen(
    [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
)
port = int(files.stdout.readline().split(" port ")[1].split()[0])
visitor = http.client.HTTPConnection("127.0.0.1", page.server_port)
model = Softmax()
for step in range(int(sys.argv[1])):
    state.update(step=step, loss=model.step())
    visitor.request("GET", "/")
    seen = json.loads(visitor.getresponse().read())
    report(step, loss=seen["loss"])
np.save("weights.npy", model.weights)
downloads = http.client.HTTPConnection("127.0.0.1", port)
downloads.request("GET", "/weights.npy")
print("served", len(downloads.getresponse().read()), "bytes of weights, last seen step", seen["step"])
files.terminate()
files.wait()
