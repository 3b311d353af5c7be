"""``memest serve``: questions answered over HTTP."""

from __future__ import annotations

import os
from typing import Annotated, Optional

from memest.cli.words import option

GET = "for a service, pip install uvicorn prometheus-client, or '.[serve]' in a checkout of memest"


def run(
    host: Annotated[str, option("--host", metavar="ADDRESS", help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, option("--port", metavar="PORT", help="0: any that is free, which is then printed.")] = 8642,
    threads: Annotated[Optional[int], option("--threads", metavar="COUNT", min=1, help="That answer (default: one a core).")] = None,  # noqa: UP045
    max_body: Annotated[str, option("--max-body", metavar="SIZE", help="The most bytes of a request.")] = "8MiB",
    max_batch: Annotated[int, option("--max-batch", metavar="COUNT", min=1, help="The most questions of a request.")] = 10_000,
    timeout: Annotated[int, option("--timeout", metavar="SECONDS", min=1, help="To send a request, and to answer it.")] = 30,
    allow_import: Annotated[bool, option("--allow-import", help="Models may be code, which is run, and files of this machine.")] = False,
    describe: Annotated[bool, option("--openapi", help="Print the description of the service (OpenAPI), and serve nothing.")] = False,
) -> None:
    """Answer questions over HTTP, JSON in and JSON out, until SIGTERM.

    POST /estimate takes one question, POST /batch thousands ({"questions": […], "common": {…}}), POST /fit a budget. A question has the
    settings of memest.estimate and "model" (built in) or "graph" (as a graph file has it), "input_shape", and "fields" where not all of
    the answer is wanted. GET /openapi.json describes it; /models, /metrics (Prometheus) and /healthz are there.

    Needs uvicorn and prometheus-client (pip install them, or '.[serve]' in a checkout of memest).

    Whoever can connect may ask, so let it listen to those you trust; with --allow-import they may run code.

    \b
    Examples, of which the first ends by itself:
      memest serve --openapi
      exec memest serve --host 0.0.0.0 --port 80 --threads 4 --max-batch 50000

    \b
    Exit codes: 0 done, 2 usage.
    """
    import json

    from memest.cli.output import write
    from memest.errors import UsageError
    from memest.files import MAX_BYTES
    from memest.serve.openapi import openapi
    from memest.sizes.asked import budget

    if describe:
        write(json.dumps(openapi(), indent=2) + "\n", None)
        return
    if port > 65535:
        raise UsageError(f"--port {port}: ports end at 65535")
    most = budget(max_body, "--max-body")
    if most > MAX_BYTES:
        raise UsageError(f"--max-body {max_body}: what is read as JSON has at most {MAX_BYTES:,} bytes")
    try:
        from memest.serve.server import Limits, serve
    except ModuleNotFoundError as e:
        raise UsageError(f"{e.name} is not installed; {GET}") from None
    serve(
        Limits(
            host=host,
            port=port,
            threads=threads or len(os.sched_getaffinity(0)),
            max_body=most,
            max_batch=max_batch,
            timeout=timeout,
            allow_import=allow_import,
        )
    )
