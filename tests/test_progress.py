"""Long work says how far it is: on a terminal's stderr, beside a result that stays clean, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from threading import Thread

import pytest

import memest
from memest.planning.progress import finish, tell, watched

AT_ONCE = (
    "import sys\nfrom memest.render import progress\nprogress.PATIENCE = 0.0\nfrom memest.cli.app import main\nsys.exit(main(sys.argv[1:]))"
)
LEFT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\s")  # what a terminal is told that shows nothing


class Told(list[tuple[str, int, int | None]]):
    """A watcher that remembers."""

    finished = False

    def tell(self, doing: str, done: int, of: int | None) -> None:
        self.append((doing, done, of))

    def finish(self) -> None:
        self.finished = True


def on_a_terminal(*arguments: str, program: str = AT_ONCE, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout, and what a terminal on stderr was sent."""
    import pty

    master, slave = pty.openpty()
    env = {**{k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}, "TERM": "xterm", "COLUMNS": "100", **environment}
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=slave, env=env, text=True) as process:
        os.close(slave)
        sent = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            sent += chunk
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(master)
    return process.returncode, out, sent.decode()


ADVISE = ["advise", "resnet18", "--input", "3x64x64", "--batch", "4", "--budget", "60MiB", "--isa", "avx2", "--threads", "1"]


@pytest.mark.slow
def test_a_terminal_is_told_how_far_long_work_is_and_then_cleared() -> None:
    code, out, sent = on_a_terminal(*ADVISE)
    assert code == 0 and "Together" in out and "\x1b[?25l" not in out
    assert re.search(r"changes, alone.* \d+ of \d+", sent) and "combinations" in sent
    last = sent[sent.rindex("\n") :]
    assert "\x1b[2K" in last and LEFT.sub("", last) == "", "every line is erased"
    assert "\x1b[?25h" in sent, "the cursor is there again"


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {}])
def test_nothing_is_said_in_a_second_or_where_no_cursor_moves(environment: dict[str, str]) -> None:
    patient = AT_ONCE.replace("0.0", "60.0" if not environment else "0.0")
    code, out, sent = on_a_terminal("ops", "conv2d", program=patient, **environment)
    assert code == 0 and out and sent == ""


def test_nothing_is_said_to_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE, "models"], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_error_is_one_clean_line_behind_it() -> None:
    code, out, sent = on_a_terminal("estimate", "resnet18", "--input", "1x4x32x32")
    assert code == 2 and out == ""
    assert LEFT.sub("", sent[sent.rindex("memest:") :]).startswith("memest:input") and sent.endswith("\r\n")


def test_loops_of_planning_tell_whoever_watches() -> None:
    graph, told = memest.model("unet2d:base_filters=2,levels=1"), Told()
    with watched(told):
        memest.advise(graph, "60KiB", input_shape=(4, 3, 16, 16))
        memest.sweep(graph, batch=range(1, 20), H=64, W=[64, 96], optimizer=["sgd", "adam"])
        memest.fit(graph, "16MiB", ["batch", "H=W"])
    assert told.finished
    for doing in ("changes, alone", "combinations", "configurations", "sizes", "sizes of the front"):
        said = [(done, of) for name, done, of in told if name == doing]
        assert said and all(of is None or 0 <= done <= of for done, of in said), doing
    alone = [done for name, done, _ in told if name == "changes, alone"]
    assert alone == sorted(alone)


def test_watching_is_this_computation_s_own() -> None:
    told = Told()
    tell("nobody hears")
    with watched(told):
        other = Thread(target=lambda: (tell("another thread"), finish()))
        other.start()
        other.join()
        assert not told.finished
        tell("here", 1, 2)
    tell("nobody hears")
    assert told == [("here", 1, 2)] and told.finished
