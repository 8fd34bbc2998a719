"""One measurement in one fresh process, and what the machine is that it ran on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PYTHON: dict[str, str] = dict.fromkeys(
    ("ours", "bare", "products", "startup", "pixelcnn", "linear", "ladder"), sys.executable
)
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
BESIDE_PEERS = ("quantizer", "transformer")
"""Contenders with tightbound and peers in one process: the peers' Python, which finds this package's source."""

Result = dict[str, Any]


def contender(name: str, task: str, **options: Any) -> Result:
    """What the script of that name prints: a JSON object on its last line.

    Args:
        name: That of a file in ``contenders``.
        task: What it shall do.
        **options: Its options; True for a flag, False and None to leave one out.
    """
    python = PYTHON.get(name, str(PEER_PYTHON))
    command = [python, str(HERE / "contenders" / f"{name}.py"), task, *_arguments(options)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")} if name in BESIDE_PEERS else None
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, env=variables, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _arguments(options: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return words


def alternate(runs: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Every run once per round, in turn, so that a slow minute of the machine hits all of them alike."""
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for i in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            results[name].append(run())
            print(f"  round {i + 1}/{rounds}  {name}: {time.perf_counter() - begin:.1f} s", flush=True)
    return results


def median_of(results: Sequence[Result], key: str) -> float:
    """The median over all rounds and all that each of them measured."""
    return statistics.median(value for result in results for value in _listed(result[key]))


def median_ratio(ours: Sequence[Result], theirs: Sequence[Result], key: str) -> float:
    """The median over the rounds of ours over theirs, each pair measured one after the other."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(median_of([a], key) / median_of([b], key) for a, b in pairs)


def _listed(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def seconds(command: Sequence[str]) -> Result:
    """How long a command takes, without its output."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return {"seconds": time.perf_counter() - begin}


def environment(threads: int) -> dict[str, Any]:
    """Everything that a reader needs to judge the numbers."""
    asked = "torch.__version__, torch.backends.cpu.get_cpu_capability(), matrix_library()"
    facts = f"import json, torch; from tightbound.runtime.processor import matrix_library; print(json.dumps([{asked}]))"
    torch_version, capability, matrices = json.loads(_output([sys.executable, "-c", facts]))
    flags = _cpu_line("flags").split()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown",
        "processor": f"{_cpu_line('model name') or platform.processor()} (family {_cpu_line('cpu family')})",
        "capability": capability,
        "matrices": matrices,
        "amx": "amx_tile" in flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch_version,
        "peers": _output([str(PEER_PYTHON), "-m", "pip", "freeze", "--disable-pip-version-check"]).splitlines(),
    }


def folder_of(environment: Mapping[str, Any]) -> str:
    """The name of the folder for results of that kind of processor."""
    return re.sub(r"[^a-z0-9]+", "-", f"{environment['processor']} {environment['capability']}".lower()).strip("-")


def _cpu_line(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
