"""What goes to a device that compiles for itself: graphs, each judged here, and what each answers to golden photos.

`compile.py` is the other half, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import backends
from ..backends import tensorrt
from ..data.images import Pixels
from ..errors import AccuracyGateFailed, BuildFailed
from ..measurement.accuracy import Gate
from ..network.variants import Variant
from ..progress import Progress
from ..target import Target
from .shipping import Form, Outcome, loss

GOLDEN = 64  # photos: an engine is held to what its graph answers here


def decide(v: Variant, forms: list[Form], target: Target, gate: Gate, *, accept: bool, progress: Progress) -> Outcome:
    """The forms that pass the gate, INT8 first; with `accept` all of them, where none passes."""
    own = sorted((f for f in forms if f.precision in target.precisions), key=lambda f: not f.precision.startswith("int8"))
    going = [f for f in own if f.report.passed] or (own if accept else [])
    if not going:
        nearest = min(own, key=lambda f: loss(f.report))
        raise AccuracyGateFailed(f"{v.name}: {gate.refusal(nearest.report)} No form passes the gate. --accept ships all the same.")
    shipped = going[0]
    going = [f for f in going if f.onnx == shipped.onnx]  # of one network
    rehearsals = rehearsed(going, progress)
    verdict = explain(target, going, [f for f in own if f not in going], rehearsals)
    answers = golden(going, shipped.onnx, next(gate.pixels.batches(GOLDEN)), target.threads)
    facts = {
        "latency_ms": None,
        "forms": [{**f.to_json(), "file": f.file.name} for f in going],
        "rehearsals": rehearsals,
    }
    return Outcome(shipped, verdict, [*(f.file for f in going), shipped.onnx], answers, facts, own)


def rehearsed(forms: Sequence[Form], progress: Progress) -> list[dict[str, Any]]:
    """Each form's parse and build by TensorRT-RTX, which needs no GPU; nothing where that is not installed."""
    if not tensorrt.can_rehearse():
        return []
    rehearsals = []
    for form in forms:
        try:
            warnings, outcome = tensorrt.rehearse(form.file, progress=progress), "built"
        except BuildFailed as error:
            warnings, outcome = [], str(error)
        rehearsals.append({"precision": form.precision, "outcome": outcome, "warnings": warnings})
    return rehearsals


def golden(forms: Sequence[Form], float_graph: Path, images: Pixels, threads: int) -> dict[str, Any]:
    """What every graph answers to the golden photos, in ONNX Runtime."""
    runtime = backends.get(tensorrt.JUDGE)
    files = {"float32": float_graph, **{f.precision: f.file for f in forms}}
    answers = {p: runtime.load(file, precision=p, threads=threads)(images) for p, file in files.items()}
    return {"images": images, "logits": answers[forms[0].precision], **answers}


def explain(target: Target, forms: Sequence[Form], refused: Sequence[Form], rehearsals: Sequence[dict[str, Any]]) -> str:
    """What goes to the device, why, and what is still to be found out there."""
    parts = [f"To {target.name} go {_listed([f.precision for f in forms])}; the device builds them all and keeps the fastest."]
    if refused:
        parts.append(f"Left out, for they miss the gate: {_listed([f'{f.precision} ({_loss(f)})' for f in refused])}.")
    if any(not f.report.passed for f in forms):
        parts.append("They fail the gate, and were accepted all the same.")
    if rehearsals:
        failed = [f"{r['precision']}: {r['outcome']}" for r in rehearsals if r["outcome"] != "built"]
        noted = sorted({w for r in rehearsals for w in r["warnings"]})
        version = tensorrt.rehearsal_version()
        parts.append(
            f"TensorRT-RTX {version} does not build {'; '.join(failed)}."
            if failed
            else f"TensorRT-RTX {version} parses and builds each{', with warnings: ' + '; '.join(noted) if noted else ''}."
        )
    parts.append("Latency and TensorRT's own rounding are measured on the device, not here.")
    return " ".join(parts)


def _loss(form: Form) -> str:
    report = form.report
    return f"agreement {report.agreement:.2f}%" if report.drop is None else f"drop {report.drop:+.2f} points"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
