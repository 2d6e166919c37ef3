"""Several log files that rotate by size under way, one of them compressed when it is put aside, and a JSON log."""

from __future__ import annotations

import gzip
import json
import logging
import logging.handlers
import os
import sys
from pathlib import Path

import numpy as np
from progress import report
from softmax import Softmax


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"level": record.levelname, "name": record.name, "message": record.getMessage()})


def compress(source: str, target: str) -> None:
    with gzip.GzipFile(target, "wb", mtime=0) as file:
        file.write(Path(source).read_bytes())
    os.remove(source)


Path("logs").mkdir()
plain = logging.handlers.RotatingFileHandler("logs/train.log", maxBytes=900, backupCount=4)
packed = logging.handlers.RotatingFileHandler("logs/debug.log", maxBytes=2500, backupCount=3)
packed.namer, packed.rotator = (lambda name: name + ".gz"), compress
packed.setFormatter(JsonFormatter())
buffered = logging.handlers.MemoryHandler(20, target=logging.FileHandler("logs/events.log"))
plain.setLevel(logging.INFO)
logging.basicConfig(level=logging.DEBUG, handlers=[plain, packed, buffered])
log = logging.getLogger("train")

model = Softmax()
for step in range(int(sys.argv[1])):
    loss = model.step()
    log.debug("step %d: gradient applied, norm of weights %r", step, float(np.linalg.norm(model.weights)))
    log.info("step %d reached a loss of %r", step, loss)
    if step % 20 == 19:
        log.warning("accuracy %.4f", model.accuracy())
    report(step, loss=loss)
