"""What is asked: the cells of the table, and the published points beside them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

SIDES = (32, 64, 128, 144, 200, 208, 240, 320)
"""208 stands for 200, at which a network that halves four times cannot run: skips of 25 meet 24."""
BATCHES = (1, 2, 4, 8, 16)
MODES = ("train", "infer")
FRAMEWORKS = ("torch", "tensorflow", "tensorflow without oneDNN")
SERVERS = {"192 GB": 192e9, "384 GB": 384e9, "1.5 TB": 1.5e12, "7.5 TB": 7.5e12}
"""Memory of the origin's servers: DRAM alone, and with persistent memory."""
MODEL, OPTIMIZER, LOSS = "unet3d", "adam", "binary_cross_entropy"


@dataclass(frozen=True, slots=True)
class Cell:
    """Cubes of ``side`` voxels, ``batch`` at once."""

    framework: str
    mode: str
    side: int
    batch: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input, in torch's order."""
        return (self.batch, 1, self.side, self.side, self.side)

    @property
    def name(self) -> str:
        """As results are stored under."""
        return f"{self.framework}, {self.mode}, {self.side}, {self.batch}"


CELLS = tuple(Cell(*c) for c in product(FRAMEWORKS, MODES, SIDES, BATCHES))
