"""``python -m validation.cluster ranks|loaders [PART]``: measure what has no result yet (needs torch); ``compare``: predict it."""

from __future__ import annotations

import sys


def main() -> int:
    """Measure the runs whose name has the given part."""
    what, only = sys.argv[1], "".join(sys.argv[2:3])
    if what == "ranks":
        from validation.cluster.ranks import measured

        for key, found in measured(only=only):
            most = [max(step["HWM"] for step in rank["steps"]) for rank in found["ranks"]]
            print(key, *(f"{n / 2**20:.0f}" for n in most), f"node {(found['own_peak'] + found['files_once']) / 2**20:.0f}", flush=True)
    elif what == "compare":
        from validation.cluster.comparing import table

        print(table())
    else:
        from validation.cluster import loaders

        for key, found in loaders.measured(only):
            own = [worker["Private_Dirty"] for worker in found["workers"]]
            print(key, {name: f"{n / 2**20:.1f}" for name, n in found["most"].items()}, *(f"{n / 2**20:.0f}" for n in own), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
