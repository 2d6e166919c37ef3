#!/bin/bash
# Two programs joined by named pipes: one augments images, the other trains on them and sends back what it got wrong.
set -euo pipefail
here=$(dirname "$0")

mkfifo batches errors
"$PYTHON" "$here/fifo.py" augment "$1" &
"$PYTHON" "$here/fifo.py" train "$1"
wait $!
rm batches errors
