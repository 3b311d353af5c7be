"""What one estimate on the command line loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from validation.bench.table import Claim

COMMAND = ["memest", "estimate", "resnet50", "--input", "3x224x224", "--batch", "8", "--train"]
NEITHER = "neither torch nor sympy"


def libraries() -> Iterator[Claim]:
    """Neither torch nor sympy."""
    program = (
        f"import sys\nsys.argv = {COMMAND!r}\nimport memest.cli.app\n"
        "try:\n    memest.cli.app.main()\nexcept SystemExit:\n    pass\n"
        "print(*({'torch', 'sympy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = done.stderr.strip()
    yield Claim("libraries memest estimate loads", found or NEITHER, NEITHER, not found)
