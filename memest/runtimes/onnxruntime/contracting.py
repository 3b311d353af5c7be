"""What ONNX Runtime's ``Einsum`` of two operands asks for besides its result: copies of operands whose dims it puts in another order, the
product, and the product in the order of the result. All of it is alive until the call returns.

Sources: onnxruntime/core/providers/cpu/math/einsum_utils/einsum_compute_preprocessor.cc (``PreprocessInputs``: operands in one order of
labels) and einsum_typed_compute_processor.cc (``PairwiseOperandProcess``, ``FinalizeOutput``).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.network.tensor import Shape
from memest.ops.equations import ELLIPSIS, parsed


def is_pair(equation: str, shapes: Sequence[Shape]) -> bool:
    """Whether there are two operands, and no label that one of them has alone is summed: the cases that have a rule."""
    inputs, output = parsed(equation, shapes)
    return len(inputs) == 2 and not (set(inputs[0]) ^ set(inputs[1])) - set(output)


def copied(equation: str, shapes: Sequence[Shape], sizes: Sequence[int], result: int) -> list[int]:
    """Bytes of each request, in order, for operands and a result of such bytes."""
    inputs, output = parsed(equation, shapes)
    first = dict.fromkeys(label for labels in inputs for label in labels)
    order = sorted(first, key=lambda label: not label.startswith(ELLIPSIS))
    size = {label: n for labels, shape in zip(inputs, shapes, strict=True) for label, n in zip(labels, shape, strict=True) if n != 1}
    left, right = ([label in labels and label in size for label in order] for labels in inputs)
    summed = [d for d, label in enumerate(order) if label not in output]
    kept = [d for d in range(len(order)) if d not in summed]
    both = [d for d in kept if left[d] and right[d]]
    only_left = [d for d in kept if left[d] and not right[d]]
    rest = [d for d in kept if not left[d]]
    asked = [n for labels, n in zip(inputs, sizes, strict=True) if labels != [label for label in order if label in labels]]
    turned = (both + only_left + summed + rest, both + summed + rest + only_left)
    asked += [n for dims, n in zip(turned, sizes, strict=True) if dims != list(range(len(order)))]
    asked.append(result)
    if [order[d] for d in both + only_left + rest] != output:
        asked.append(result)
    return asked
