"""The oracle of CUDA: torch's own CUDA build, run on a stand-in for the CUDA runtime (no card) or on a card, and what it asked for.

On the stand-in everything that decides about memory is real: torch's dispatch, its kernels' host side, its caching allocator, its
optimizers, and cuDNN's choice of plans. Nothing is computed: values are zero. A result says which of the two it comes from
(``stand-in`` or ``gpu``), and for which torch, cuDNN and card.
"""
