# criu-train with the newest CRIU that Debian has. Kernels from 6.16 on need CRIU 4.2, which is in sid only so far.
#
#   docker build -t criu-train .
#   docker run --privileged -v "$PWD:/work" -w /work criu-train run -- python3 train.py
#
# Privileged, since CRIU makes namespaces, traces processes and sets PIDs, and none of that is in a container's
# default rights.
FROM debian:sid-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends criu python3-pycriu python3-venv util-linux \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md /usr/src/criu-train/
COPY criu_train /usr/src/criu-train/criu_train
RUN python3 -m venv /opt/criu-train \
    && /opt/criu-train/bin/pip install --no-cache-dir /usr/src/criu-train \
    && ln -s /opt/criu-train/bin/criu-train /usr/local/bin/criu-train

ENTRYPOINT ["criu-train"]
CMD ["--help"]
