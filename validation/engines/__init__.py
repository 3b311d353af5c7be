"""Inference engines: networks exported to ONNX, run by the engine in an environment of its own, and compared with what is stored
(``python -m validation compare --runtime onnxruntime`` or ``openvino``, which needs neither torch nor engine)."""
