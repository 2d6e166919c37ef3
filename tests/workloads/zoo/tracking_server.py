"""A metrics server outside of the training: takes POST requests over HTTP/1.1 connections that stay open.

It answers with the digest of what it was sent, and hangs up after so many requests of a connection (0: never).
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANGS_UP_AFTER = int(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"stored": hashlib.sha256(body).hexdigest()[:16]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.served += 1
        if self.served == HANGS_UP_AFTER:
            self.close_connection = True  # without having said so

    def log_message(self, format: str, *arguments: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
