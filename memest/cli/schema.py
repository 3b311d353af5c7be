"""``memest schema``: the JSON Schema of graph files."""

from __future__ import annotations

from memest.cli import options as o


def run(output: o.Output = None) -> None:
    """Write the JSON Schema of graph files.

    \b
    Example:
      memest schema --output memest.sources.files.json

    \b
    Exit codes: 0 done, 2 usage.
    """
    import json

    from memest.cli.output import by_suffix, write
    from memest.sources.files import json_schema

    if output is not None and output.suffix:
        by_suffix(output, {".json": "json"}, "a JSON Schema is")
    write(json.dumps(json_schema(), indent=2) + "\n", output)
