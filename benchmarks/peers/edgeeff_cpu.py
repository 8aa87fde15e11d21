"""edgeeff for this CPU: `python edgeeff_cpu.py WEIGHTS PHOTOS OUT FORM VARIANT VAL`: what the whole of `edgeeff fit` ships.

PHOTOS lists the calibration photos, VAL is a folder of others that a fit decides by. FORM is a key of `FORMS`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from edgeeff import Budget, Job, fit

ENOUGH = Budget(latency_ms=1000)  # which all networks meet; without any, one is made smaller as far as the gate allows
FORMS = {
    "default": {"budget": ENOUGH},
    "auto": {"budget": ENOUGH, "activation": "auto"},
    "smaller": {"activation": "auto", "adapt": "auto"},
}
"""The options of a fit."""


def main(weights: str, listed: str, out: str, form: str, variant: str, val: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        photos, bundle = Path(temporary) / "photos", Path(temporary) / "bundle"
        photos.mkdir()
        for path in map(Path, Path(listed).read_text().splitlines()):
            (photos / path.name).symlink_to(path)
        fit(Job("host-cpu", bundle, val, calib=photos, variants=[variant], weights=weights, **FORMS[form]))
        for name in ("model.xml", "model.bin", "manifest.json"):  # which says why this form
            shutil.copyfile(bundle / name, Path(out).with_name(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
