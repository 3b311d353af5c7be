"""The load on the service: what it says of wrk's words, and that batches are asked and answered."""

from __future__ import annotations

import json

import pytest

from validation import serving

WRK = """  Latency Distribution
     50%  640.00us
     75%    3.18ms
     99%    1.25s
Requests/sec:   8353.81
"""


def test_times_are_read_in_milliseconds() -> None:
    assert (serving._ms(WRK, "50"), serving._ms(WRK, "75"), serving._ms(WRK, "99")) == (0.64, 3.18, 1250.0)


def test_what_is_asked_again_is_mixed_and_written_for_wrk() -> None:
    assert len(serving.KNOWN) == 96 and {q["mode"] for q in serving.KNOWN} == {"train", "infer"}
    script = serving.AGAIN.format(bodies=", ".join(f"[==[{json.dumps(q)}]==]" for q in serving.KNOWN), delay=0)
    assert "{bodies}" not in script and script.count("[==[") == 96
    assert f'"fields": {json.dumps(serving.FIGURES)}' in serving.ANEW.format(fields=json.dumps(serving.FIGURES), delay=32)


@pytest.mark.slow
def test_batches_are_timed_and_memory_is_told() -> None:
    questions = [{"model": "resnet18", "input_shape": [n, 3, 64, 64]} for n in range(2, 12)]
    with serving.served() as port:
        load = serving.in_batches("ten", port, {"common": {"fields": serving.FIGURES}, "questions": questions}, 3)
    assert load.a_second > 0 and load.errors == 0 and 0 < load.half_ms <= load.slowest_ms
    assert load.resident_bytes[1] > 2**20
