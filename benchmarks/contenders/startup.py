"""What starting costs: seconds from one import to the next, in a process that has done nothing else."""

from __future__ import annotations

import json
import time


def main() -> None:
    names, times = [], [time.perf_counter()]

    def done(name: str) -> None:
        names.append(name)
        times.append(time.perf_counter())

    import torch  # noqa: F401

    done("import torch")
    import tightbound as tb

    done("import tightbound")
    tb.recipes  # noqa: B018
    done("tb.recipes")
    tb.load_data  # noqa: B018
    done("tb.load_data")
    tb.train  # noqa: B018
    done("tb.train")
    tb.evaluate  # noqa: B018
    done("tb.evaluate")
    print(json.dumps({name: b - a for name, a, b in zip(names, times[:-1], times[1:], strict=True)}))


if __name__ == "__main__":
    main()
