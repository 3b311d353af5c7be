"""Progress on a terminal, on stderr: what takes longer than ``PATIENCE`` shows what it does and how far it is, and leaves no trace."""

from __future__ import annotations

import os
import sys
from threading import Lock, Timer
from typing import TYPE_CHECKING

from memest.shown import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0  # seconds


def wanted() -> bool:
    """True where somebody looks: stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Display:
    """A line for each thing that is under way (:class:`memest.planning.progress.Watcher`). It appears by itself when work is long."""

    def __init__(self, doing: str) -> None:
        self._lock = Lock()
        self._known: dict[str, tuple[int, int | None]] = {doing: (0, None)}
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        self._over = False
        self._timer = Timer(PATIENCE, self._start)
        self._timer.daemon = True
        self._timer.start()

    def tell(self, doing: str, done: int, of: int | None) -> None:
        """Work that nobody can count replaces what was said of such work before; a count stays until it is full."""
        with self._lock:
            if of is None:
                self._known = {name: state for name, state in self._known.items() if state[1] is not None}
            self._known[doing] = (done, of)
            if of is not None and done >= of:
                del self._known[doing]
            self._draw()

    def finish(self) -> None:
        """Nothing is left on the terminal."""
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        with self._lock:
            if self._over:
                return
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TextColumn("{task.fields[count]}"))
            looks = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
            self._progress = Progress(*columns, console=looks, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._draw()
            self._progress.start()

    def _draw(self) -> None:
        if self._progress is None:
            return
        for name in [name for name in self._tasks if name not in self._known]:
            self._progress.remove_task(self._tasks.pop(name))
        for name, (done, of) in self._known.items():
            count = f"{done:,} of {of:,}" if of is not None else f"{done:,}" if done else ""
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(visible(name), total=of, count=count)
            self._progress.update(self._tasks[name], completed=done, total=of, count=count)
