"""Inference engines: networks exported to ONNX, run by the engine in an environment of its own, and compared with what is stored.

``python -m validation.engines.exporting FOLDER`` (torch, torchvision, monai, segmentation_models_pytorch) writes the files;
``python validation/engines/measure_onnxruntime.py FOLDER MEASURED.jsonl`` (onnxruntime and a C compiler, no memest) runs them;
``python -m validation.engines.storing MEASURED.jsonl FOLDER`` (memest and onnx) puts both into ``results/engines``;
``python -m validation compare --runtime onnxruntime`` needs neither torch nor engine.
"""
