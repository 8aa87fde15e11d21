"""edgeeff for this CPU: `python edgeeff_cpu.py WEIGHTS PHOTOS OUT ACTIVATION VARIANT VAL`: what the whole of `edgeeff fit` ships.

PHOTOS lists the calibration photos, VAL is a folder of others that a fit decides by. ACTIVATION is `default` or one of its words.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from edgeeff import Budget, Job, fit


def main(weights: str, listed: str, out: str, activation: str, variant: str, val: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        photos, bundle = Path(temporary) / "photos", Path(temporary) / "bundle"
        photos.mkdir()
        for path in map(Path, Path(listed).read_text().splitlines()):
            (photos / path.name).symlink_to(path)
        options = {} if activation == "default" else {"activation": activation}
        network = {"variants": [variant], "weights": weights, "budget": Budget(latency_ms=1000)}
        fit(Job("host-cpu", bundle, val, calib=photos, **network, **options))
        for name in ("model.xml", "model.bin"):
            shutil.copyfile(bundle / name, Path(out).with_name(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
