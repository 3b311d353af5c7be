"""What a live report computes from: the compiled steps of one network under several choices, over a grid of sizes, as plain data.

:func:`page_model` plays each choice (mode, optimizer, dtype) once per piece, with symbolic sizes, and keeps events, size formulas and, for
sealed kernels, exact values over the grid. :mod:`memest.planning.page.reading` evaluates that data as a browser does; every page is
checked by it against the estimate before it is handed out.
"""

from memest.planning.page.grid import Axis, axes_of, read_sizes
from memest.planning.page.model import PageModel, page_model

__all__ = ["Axis", "PageModel", "axes_of", "page_model", "read_sizes"]
