"""What oneDNN's AVX-512 direct and 1x1 convolutions share: layouts by 16 channels (8 or 4 for small groups).

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_common_conv_kernel.cpp and jit_avx512_common_1x1_convolution.hpp.
"""

from __future__ import annotations

BLOCK = 16
"""Floats in an AVX-512 register, and channels in a block."""


def blocks(channels: int, block: int = BLOCK) -> int:
    """Blocks needed to hold ``channels``; more generally the quotient rounded up."""
    return -(-channels // block)


def round_up(number: int, multiple: int = BLOCK) -> int:
    """The first multiple not below ``number``."""
    return -(-number // multiple) * multiple


def blocked_data_tag(spatial_dims: int, block: int = BLOCK) -> str:
    """nCw16c, nChw16c or nCdhw16c."""
    return f"aB{'cde'[:spatial_dims]}{block}b"


def blocked_weights_tag(spatial_dims: int, *, grouped: bool, input_innermost: bool, block: int = BLOCK) -> str:
    """OIhw16i16o and its relatives, or OIhw16o16i when the input channels are innermost."""
    if grouped:
        outer, output_letter, input_letter = f"aBC{'def'[:spatial_dims]}", "b", "c"
    else:
        outer, output_letter, input_letter = f"AB{'cde'[:spatial_dims]}", "a", "b"
    middle, inner = (output_letter, input_letter) if input_innermost else (input_letter, output_letter)
    return f"{outer}{block}{middle}{block}{inner}"
