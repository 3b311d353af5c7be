"""What ONNX exporters write of networks, kept without weights, and read again: ``python -m validation.exporters`` writes what is missing
(needs torch, onnx, onnxscript and the networks' libraries), ``python -m validation compare exporters`` reads them without torch."""
