#!/usr/bin/env bash
# TensorFlow's Eigen kernels on a processor: the scratch of a convolution's filter gradient.
#
# Guess: the images are unfolded for a matrix product, so the scratch is batch x output pixels x kernel elements, and grows with the batch:
#   27,648 numbers (110,592 bytes) for an image of 16 x 16 with 3 channels and a kernel of 3 x 3.
# Seen with tensorflow-cpu 2.21.0 and oneDNN off: 23,721,984 bytes for a gradient of 864, with one image as with four. The kernel decides how
#   many images' unfolding, gradient and result fill a target of 30 MiB, here 858, and allocates for so many whether or not there are that
#   many. With oneDNN on (the default) there is no such tensor.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0
cat > "$work/probe.py" <<'PYTHON'
import sys

import tensorflow as tf

batch = int(sys.argv[1])
images, gradient = tf.zeros((batch, 16, 16, 3)), tf.zeros((batch, 16, 16, 8))
backward = tf.function(
    lambda: tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=[3, 3, 3, 8], out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME"
    )
)
assert backward().shape == (3, 3, 3, 8)
PYTHON
export TF_CPP_MIN_LOG_LEVEL=0 TF_CPP_MAX_VLOG_LEVEL=0 TF_CPP_VMODULE=log_memory=2 CUDA_VISIBLE_DEVICES=
sizes() { # oneDNN on (1) or off (0), batch: bytes of the tensors that the gradient's kernel takes
    TF_ENABLE_ONEDNN_OPTS=$1 "$work/venv/bin/python" "$work/probe.py" "$2" 2>&1 |
        sed -n '/MemoryLogTensorAllocation.*Conv2DBackpropFilter/s/.*requested_bytes: \([0-9]*\).*/\1/p' | sort -n | paste -sd ' '
}
seen="oneDNN off, 1 image: $(sizes 0 1)
oneDNN off, 4 images: $(sizes 0 4)
oneDNN on, 1 image: $(sizes 1 1)
oneDNN on, 4 images: $(sizes 1 4)"
echo "tensorflow-cpu 2.21.0, bytes of the tensors that Conv2DBackpropFilter takes:"
echo "$seen"
[ "$seen" = "oneDNN off, 1 image: 864 23721984
oneDNN off, 4 images: 864 23721984
oneDNN on, 1 image: 864
oneDNN on, 4 images: 864" ]
