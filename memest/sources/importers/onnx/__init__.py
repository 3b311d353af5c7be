"""ONNX files as graphs: the protobuf without its weights, its nodes as calls of our rows, and what is arithmetic of sizes folded."""
