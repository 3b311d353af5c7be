"""Keras on TensorFlow's CPU kernels: the graph that a step becomes (``building``, ``gradients``), what TensorFlow makes of it before it
runs (``grappler``), its kernels' memory (``kernels``), one step of its executor (``executing``), and the process."""
