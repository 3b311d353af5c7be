"""ONNX Runtime, measured in three steps.

``python -m validation.engines.onnxruntime.exporting FOLDER`` (torch, torchvision, monai, segmentation_models_pytorch) writes the files;
``python validation/engines/onnxruntime/measuring.py FOLDER MEASURED.jsonl`` (onnxruntime and a C compiler, no memest) runs them;
``python -m validation.engines.onnxruntime.storing MEASURED.jsonl FOLDER`` (memest and onnx) puts both into ``results/engines``.
"""
