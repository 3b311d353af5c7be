"""A network as ONNX Runtime rewrites it before it runs."""
