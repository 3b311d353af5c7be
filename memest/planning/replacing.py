"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from memest.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that is written beside ``path`` and takes its place at the end: whole or not at all. A device or a pipe is written through,
    never replaced. UsageError says why it cannot be."""
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as through:
                yield through
            return
        final = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
        try:
            with os.fdopen(handle, "wb") as beside:
                yield beside
            os.chmod(name, final.stat().st_mode & 0o7777 if final.exists() else 0o666 & ~_umask())
            os.replace(name, final)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as e:
        raise UsageError(f"cannot write {path}: {e.strerror or e}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
