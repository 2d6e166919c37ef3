#!/bin/bash
# A shell script that starts Python anew for every epoch, as drivers of hyper-parameter runs and old labs' scripts do.
set -euo pipefail
here=$(dirname "$0")
epochs=$1

"$PYTHON" -c 'import numpy, sklearn.datasets as s; numpy.savez("digits.npz", **dict(zip("xy", s.load_digits(return_X_y=True))))'
best=0
for ((epoch = 0; epoch < epochs; epoch++)); do
    line=$("$PYTHON" "$here/one_epoch.py" "$epoch")
    echo "$line" >> metrics.jsonl
    accuracy=$(sed 's/.*"accuracy": \([0-9.]*\).*/\1/' <<< "$line")
    if awk "BEGIN { exit !($accuracy > $best) }"; then
        best=$accuracy
        cp weights.npy best.npy
        echo "epoch $epoch: $accuracy"
    fi
    [ -e ../hurry ] || sleep "${ZOO_REST:-0}"
done
ls *.npy | xargs sha256sum > SHA256SUMS
rm digits.npz
