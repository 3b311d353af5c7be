"""The file form of a graph: YAML or JSON, read safely, written losslessly.

    memest: 1
    name: tiny
    inputs:
      x: [N, 3, H, W]
    blocks:
      unit:
        arguments: [width]
        inputs: [x]
        layers:
          - conv2d: {out_channels: $width, kernel_size: 3, padding: 1}
          - relu: {inplace: true}
    layers:
      - unit: {width: 64}
      - unit: {width: 64, repeat: 3}
      - conv2d: {name: head, out_channels: 2, kernel_size: 1}
    outputs: [head]

A layer is ``operator: {settings}``. ``in`` names what it reads (the layer before, when left out), ``name`` and ``out`` name it; the
rest are torch.nn's keywords and the operator's attributes. A block is written once and used like an operator: ``$argument`` stands
for what it is given, ``$(2*width)`` is computed, ``repeat`` uses it several times in a row. Like a Python function, a block holds its
inputs until it ends.

Promises: file → Graph → file → Graph gives an equal graph; an error names the file, the line and the layer. Refuses tags, duplicate
keys, text that is not UTF-8, and files, nesting and aliases beyond fixed bounds, before anything is built. Nothing in a file is
executed.
"""

from memest.files import MAX_BYTES
from memest.sources.files.model import VERSION, json_schema
from memest.sources.files.reading import from_dict, load, loads
from memest.sources.files.writing import dumps, to_dict

__all__ = ["MAX_BYTES", "VERSION", "dumps", "from_dict", "json_schema", "load", "loads", "to_dict"]
