#!/usr/bin/env bash
# Keras 3 on TensorFlow: which kernel a BatchNormalization of images runs in training.
#
# Guess: TensorFlow's FusedBatchNormV3, which keeps one activation for backward, for images of two dims (as tf.keras had it with Keras 2), and
#   single operators for volumes.
# Seen with keras 3.15.1 on tensorflow-cpu 2.21.0: single operators for both (Mean, SquaredDifference, Rsqrt, Mul, Sub, AddV2). The fused operator
#   is still there: TensorFlow's own function takes it.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 keras==3.15.1
cat > "$work/probe.py" <<'PYTHON'
import keras
import tensorflow as tf


def operators(function, shape):
    graph = tf.function(function).get_concrete_function(tf.TensorSpec(shape)).graph.as_graph_def()
    found = {n.op for n in graph.node} | {n.op for f in graph.library.function for n in f.node_def}
    return "fused" if any("FusedBatchNorm" in op for op in found) else "SquaredDifference" if "SquaredDifference" in found else "other"


for dims in (2, 3):
    layer = keras.layers.BatchNormalization()
    shape = (2, *(8,) * dims, 4)
    layer.build(shape)
    print(f"keras, {dims} dims: {operators(lambda images: layer(images, training=True), shape)}")
ones = tf.ones(4)
own = tf.compat.v1.nn.fused_batch_norm
print(f"tensorflow, 2 dims: {operators(lambda images: own(images, ones, ones, is_training=True)[0], (2, 8, 8, 4))}")
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_BACKEND=tensorflow
seen=$("$work/venv/bin/python" "$work/probe.py" 2>/dev/null)
echo "keras 3.15.1, tensorflow-cpu 2.21.0:"
echo "$seen"
[ "$seen" = "keras, 2 dims: SquaredDifference
keras, 3 dims: SquaredDifference
tensorflow, 2 dims: fused" ]
