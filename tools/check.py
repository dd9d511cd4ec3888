"""`make test`: style, types, then every test and every notebook; prints how long each took."""

from __future__ import annotations

import subprocess
import sys
import time

STEPS = (
    ("형식 (ruff)", ["-m", "ruff", "check", "."]),
    ("타입 (mypy)", ["-m", "mypy"]),
    # Two at a time, because most tests wait: for a browser, a server, a program that ends. A file stays with one of them.
    ("시험과 노트북 (pytest)", ["-m", "pytest", "-n", "2", "--dist", "loadfile"]),
)


def main() -> int:
    began = time.perf_counter()
    failed = []
    for label, command in STEPS:
        print(f"== {label}", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, *command]).returncode != 0:
            failed.append(label)
        print(f"== {label}: {time.perf_counter() - start:.0f}초", flush=True)
    total = time.perf_counter() - began
    print(f"모두 {total / 60:.1f}분 걸렸습니다. " + (f"실패: {', '.join(failed)}" if failed else "모두 통과했습니다."), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
