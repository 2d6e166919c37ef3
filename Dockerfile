# criu-train with the newest CRIU that Debian has: kernels from 6.16 on need CRIU 4.2, which only sid has so far.
#
#   docker build -t criu-train .
#   docker run --privileged -v "$PWD:/work" -w /work criu-train run -- python3 train.py
#
# Privileged, because CRIU makes namespaces, traces processes, sets clocks and locks connections; what exactly it needs,
# and how to put criu-train into an image of your own, is told in docs/containers.md.
FROM debian:sid-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends criu python3-pycriu python3-venv tini util-linux \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md /usr/src/criu-train/
COPY criu_train /usr/src/criu-train/criu_train
COPY man /usr/src/criu-train/man
RUN python3 -m venv /opt/criu-train \
    && /opt/criu-train/bin/pip install --no-cache-dir /usr/src/criu-train \
    && ln -s /opt/criu-train/bin/criu-train /usr/local/bin/criu-train

# tini is PID 1: it reaps what `docker exec` leaves behind, and passes on the signals of `docker stop` and `docker kill`.
ENTRYPOINT ["tini", "--", "criu-train"]
CMD ["--help"]
