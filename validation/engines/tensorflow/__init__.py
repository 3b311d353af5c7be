"""Keras on TensorFlow's CPU kernels: steps measured in an environment that has tensorflow, by the log of its tensors, and compared with
predictions (``python -m validation compare --runtime tensorflow-cpu``, which needs no tensorflow)."""
