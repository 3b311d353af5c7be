"""ONNX Runtime on a processor."""
