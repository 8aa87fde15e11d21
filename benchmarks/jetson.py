"""The table of a Jetson or GPU, made on it: `python benchmarks/jetson.py BUNDLE... --val DIR`. Needs base edgeeff and TensorRT.

Compiles each bundle, and writes results/jetson-BOARD.json with accuracy, latency, engine layers, power mode, clocks and versions.
"""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

import result_files

from edgeeff.compilation import compile_bundle
from edgeeff.job import CompileJob
from edgeeff.measurement import jetson as board
from edgeeff.progress import TerminalProgress
from edgeeff.records import to_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--val", required=True, metavar="DIR")
    options = parser.parse_args()
    jetson = board.read()
    name = re.sub(r"\W+", "-", jetson.model.lower() if jetson else "gpu").strip("-")
    rows = {}
    for bundle in options.bundles:
        compiled = compile_bundle(CompileJob(bundle, val=options.val), progress=TerminalProgress())
        rows[Path(bundle).name] = to_json({"engines": compiled.engines, "verdict": compiled.verdict, "board": jetson})
        print(f"\n{bundle}: {compiled.verdict}")
        print("\n| engine | top-1 % | drop | p50 ms, 95% interval | p90 | MB |\n|---|---|---|---|---|---|")
        for e in compiled.engines:
            if e.latency_ms and e.accuracy:
                low, high = e.latency_ms.ci
                latency = f"{e.latency_ms.p50:.2f} ({low:.2f} to {high:.2f}) | {e.latency_ms.p90:.2f}"
                print(f"| {e.precision} | {e.accuracy.top1:.2f} | {e.accuracy.drop:+.2f} | {latency} | {e.size_mb:.1f} |")
    result = {"measured": rows, "versions": dict(compiled.bundle.manifest.versions), "date": datetime.date.today().isoformat()}
    path = result_files.FOLDER / f"jetson-{name}.json"
    result_files.write(path, result)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
