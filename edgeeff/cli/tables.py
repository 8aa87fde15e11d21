"""What a person reads of each result: short tables, and a line or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Unreliable, error_for, printable
from ..measurement.latency import speedups
from ..precision import Precision
from ..records import from_json
from .grid import table

if TYPE_CHECKING:
    from ..backends.tensorrt import Layer
    from ..budget import Budget
    from ..camera.stats import CameraSummary
    from ..compilation import Compilation
    from ..evaluation import BundleBenchmark
    from ..export.finding import Finding
    from ..manifest import AttemptRecord, FormRecord, ReductionRecord
    from ..measurement.accuracy import StepReport
    from ..measurement.benchmark import Metrics
    from ..network.architecture import Variant
    from ..pipeline import Fit
    from ..quantization.layer_error import LayerError
    from ..remote.fleet import HostAnswer
    from ..requalification import Requalification
    from ..selection.candidates import Candidate, FormKey
    from ..selection.latency_model import LatencyModel
    from ..selection.rivals import Rivals
    from ..selection.search import Choice
    from ..target import Target
    from .doctor import Finding as Examined


SMALLER = ["px", "parts out"]  # columns that say how a network was made smaller
SPEED = ["speed", "95% of speed"]


def cameras(summary: CameraSummary) -> None:
    """Frames and labels of each source, and its end-to-end latency."""
    columns = [
        "source",
        "frames",
        "labels",
        "dropped",
        "fps",
        "p50 ms",
        "p90",
        "p99",
        "waiting",
        "inference",
        "output",
        "outages",
    ]
    rows = []
    for r in summary.sources:
        latency = [f"{ms:.1f}" if ms is not None else "" for ms in (r.age_ms.p50, r.age_ms.p90, r.age_ms.p99)]
        parts = [f"{part.p50:.1f}" if part.p50 is not None else "" for part in r.parts_ms.values()]
        outages = f"{len(r.outages)}, {sum(r.outages):.0f} s" if r.outages else "none"
        rows.append([r.source, str(r.frames), str(r.labels), str(r.dropped), f"{r.fps:.1f}", *latency, *parts, outages])
    temperature = f", {summary.temperature:.0f} °C" if summary.temperature else ""
    medians = [r.age_ms.p50 or 0.0 for r in summary.sources]
    slowest = medians.index(max(medians)) if len(medians) > 1 else None
    marked = "" if slowest is None else "; the slowest source marked"
    title = f"{summary.seconds:.0f} s{temperature}; end-to-end latency, and the medians of its parts in ms{marked}"
    spare = ["waiting", "output", "p90", "inference", "dropped", "outages", "frames"]
    table(columns, rows, title=title, marked=slowest, spare=spare)


def cameras_elsewhere(answers: Sequence[HostAnswer]) -> None:
    """One table of every host's cameras, and a line for each host that failed."""
    from ..camera.stats import CameraSummary

    summaries = {a.host: from_json(a.result["summary"], CameraSummary, a.host) for a in answers if "summary" in a.result}
    if summaries:
        rows = tuple(replace(row, source=f"{host} {row.source}") for host, summary in summaries.items() for row in summary.sources)
        highest = max((s.temperature for s in summaries.values() if s.temperature), default=None)
        cameras(CameraSummary(rows, max(s.seconds for s in summaries.values()), highest))
    for answer in answers:
        if answer.error is not None:
            print(printable(f"{answer.host}: {answer.error}"))


def steps(reports: Sequence[StepReport], *, shipped: str, photos: str = "photos") -> None:
    """The accuracy of each step against the float model. `photos`: what they are."""
    labelled = reports[0].top1 is not None
    columns = (
        ["step", "top-1 %", "top-5 %", "drop", "95% interval", "agreement %", "passed", "proven"]
        if labelled
        else ["step", "agreement %", "passed"]
    )
    rows = []
    for i, r in enumerate(reports):
        passed = ("yes" if r.passed else "NO") if i else ""
        if r.top1 is None or r.top5 is None or r.drop is None or r.drop_ci is None:
            rows.append([r.step, f"{r.agreement:.2f}", passed])
            continue
        drop = [f"{r.drop:+.2f}", f"{r.drop_ci[0]:+.2f} … {r.drop_ci[1]:+.2f}"] if i else ["", ""]
        proven = "yes" if r.proven else f"~{r.needed} photos" if r.needed else "no"
        agreement, proven = (f"{r.agreement:.2f}", proven) if i else ("", "")
        rows.append([r.step, f"{r.top1:.2f}", f"{r.top5:.2f}", *drop, agreement, passed, proven])
    marked = next((i for i, r in enumerate(reports) if r.step == shipped), None)
    gained = "; a negative drop is a gain" if any((r.drop or 0) < 0 for r in reports) else ""
    spare = ["top-5 %", "agreement %", "95% interval", "proven"] if labelled else []
    table(columns, rows, title=f"accuracy on {reports[0].images} {photos}{gained}", marked=marked, spare=spare)
    by_class(reports)


def by_class(reports: Sequence[StepReport]) -> None:
    """The class that loses most in each step, with the number of its photos, and the mean of the classes where they are uneven."""
    from ..measurement.by_class import LEAST_PHOTOS

    uneven = any(r.balanced is not None for r in reports)
    rows = []
    for r in reports:
        if r.worst_class or uneven:
            w = r.worst_class
            worst = [w.name, str(w.photos), f"{w.before:.2f}", f"{w.after:.2f}", f"{w.drop:+.2f}"] if w else [""] * 5
            rows.append([r.step, *worst, *([f"{r.balanced or 0:.2f}"] if uneven else [])])
    if rows:
        columns = ["step", "class", "photos", "float %", "now %", "drop", *(["mean %"] if uneven else [])]
        mean = "; mean of all" if uneven else ""
        title = f"the class that loses most, of those with {LEAST_PHOTOS} photos or more{mean}"
        table(columns, rows, title=title, spare=["float %", "photos"], prose=["class"])


def ladder(attempts: Sequence[AttemptRecord]) -> None:
    """What was tried for INT8, in order."""
    rows, resized = [], any(a.left_out for a in attempts) or len({a.resolution for a in attempts if a.resolution}) > 1
    for a in attempts:
        drop = "" if a.drop is None else f"{a.drop:+.2f}"
        agreement = "" if a.agreement is None else f"{a.agreement:.2f}"
        outcome = a.note or ("passed" if a.passed else "missed the gate")
        rows.append([a.remedy, a.activation, *_smaller(a, resized), drop, agreement, f"{a.seconds:.0f}", outcome])
    columns = ["strategy", "activation", *SMALLER[: 2 * resized], "drop", "agreement %", "seconds", "outcome"]
    table(columns, rows, title="strategies for INT8", spare=["seconds", "agreement %", "activation"], prose=["outcome"])


def layers(errors: Sequence[LayerError]) -> None:
    """The layers that add most error, with a bar each."""
    most = max((e.adds for e in errors), default=0) or 1.0
    rows = []
    for e in errors:
        kept = "" if e.low is None else f"{e.low:.2f} … {e.high:.2f}"
        bar = "█" * max(0, round(20 * e.adds / most))
        rows.append(
            [e.layer, str(e.bits), kept, f"{e.largest:.2f}", f"{e.outliers:.3f}", f"{e.arrives:.2f}", f"{e.leaves:.2f}", bar]
        )
    columns = ["layer", "bits", "range kept", "largest", "outliers %", "error in %", "error out %", "adds"]
    title = "layers by the error they add (squared, of the float signal's power)"
    table(columns, rows, title=title, spare=["bits", "largest", "outliers %", "error in %", "error out %", "range kept"])


def fit(result: Fit) -> None:
    """Everything that a fit has found, and where the bundle is."""
    outcome, manifest = result.outcome, result.manifest
    if result.choice:
        choice(result.choice)
    steps(manifest.steps, shipped=outcome.shipped.report.step)
    if held := manifest.held_out:
        steps(held.steps, shipped=held.steps[1].step, photos="test photos, which no choice has seen")
    if better := manifest.improvement:
        for judged, photos in ((better.old, "old photos"), (better.new, "frames, which nothing was learned from")):
            steps(judged, shipped=judged[1].step, photos=photos)
    if len(manifest.ladder) > 1:
        ladder(manifest.ladder)
    if outcome.siblings:
        siblings(manifest.siblings, [s.form for s in outcome.siblings].index(outcome.shipped))
    if pieces := manifest.made_smaller_by:
        reductions(pieces)
    if outcome.metrics:
        hosts(outcome.metrics, manifest.budget.percentile)
    path = result.bundle.path
    print(f"{outcome.verdict}\n\nbundle: {path}    check it again: edgeeff verify {path}\nreport: {result.bundle.report}")
    if result.compiled:
        engines(result.compiled)


def siblings(rows: Sequence[FormRecord], shipped: int | None) -> None:
    """Latency of every precision of the model, measured in one run; `shipped` is the index of the one that ships."""
    measured = [(row, row.metrics) for row in rows if row.metrics]
    speeds = speedups([m.latency for _, m in measured], [row.precision is Precision.FLOAT32 for row, _ in measured])
    resized = any(row.left_out for row in rows) or len({row.resolution for row in rows}) > 1
    lines = []
    for (row, metrics), speed in zip(measured, speeds, strict=True):
        latency = metrics.latency
        lines.append(
            [
                row.name,
                row.activation,
                row.runtime,
                *_smaller(row, resized),
                f"{latency.p50:.2f}",
                f"{latency.ci[0]:.2f} … {latency.ci[1]:.2f}",
                f"{latency.p90:.2f}",
                f"{latency.p99:.2f}",
                f"{speed.times:.2f}×" if speed else "",
                f"{speed.ci[0]:.2f} … {speed.ci[1]:.2f}" if speed else "",
                f"{metrics.costs['size_mb'] or 0:.1f}",
                f"{row.agreement:.2f}" if row.drop is None else f"{row.drop:+.2f}",
            ]
        )
    accuracy = "agreement %" if rows[0].drop is None else "drop"
    columns = ["precision", "activation", "runtime", *SMALLER[: 2 * resized], "p50 ms", "95% interval", "p90", "p99", *SPEED, "MB"]
    spare = ["p99", "p90", "parts out", "95% interval", "95% of speed", "MB", "activation"]
    title = "latency of one photo, in interleaved blocks; speed against the fastest float32"
    table([*columns, accuracy], lines, title=title, marked=shipped, spare=spare)


def _smaller(row: AttemptRecord | FormRecord, shown: bool) -> list[str]:
    """The columns SMALLER, where they are shown."""
    return [str(row.resolution or ""), str(len(row.left_out) or "")] if shown else []


def reductions(pieces: Sequence[ReductionRecord]) -> None:
    """What each piece bought."""
    rows = [[r.name.removeprefix("blocks."), f"{r.saves_ms:.3f}", f"{r.loss:.4f}"] for r in pieces]
    table(["made smaller by", "saves ms", "loss alone, before recovery"], rows)


def choice(made: Choice) -> None:
    """Every candidate of a pick, the chosen one marked, those on the frontier with a dot."""
    rows = []
    for c in made.table:
        v = c.variant
        known = [v.name, str(v.resolution), f"{c.gflops:.2f}", f"{c.mparams:.1f}", f"{c.accuracy or 0:.1f}"]
        rows.append([*known, *_fastest(c), "•" if c in made.frontier else ""])
    columns = [
        "variant",
        "px",
        "GMACs",
        "M params",
        "expected %",
        "fastest",
        "predicted ms" if made.chosen.predicted else "p50 ms",
    ]
    spare = ["p90", "M params", "GMACs", "95% interval", "frontier", "MB", "expected %"]
    table([*columns, "95% interval", "p90", "MB", "frontier"], rows, marked=made.table.index(made.chosen), spare=spare)


def rivals(found: Rivals, budget: Budget) -> None:
    """Networks outside of the family that should be more accurate within the budget, and where the figures come from."""
    from ..selection.rivals import published

    known = published()
    if not found.found:
        others = sum(not n.variant for n in known.networks)
        print(f"None of {others} published networks outside of the family should be more accurate within {budget}.")
        return
    rows = []
    for rival in found.found:
        n, ms = rival.network, rival.milliseconds
        latency = [f"{ms:.2f}", f"{rival.interval[0]:.2f} … {rival.interval[1]:.2f}"] if ms and rival.interval else ["", ""]
        size = f"{n.forms[rival.precision].size_mb:.1f}"
        rows.append([f"{n.network}.{n.weights}", str(n.resolution), f"{n.top1:.1f}", str(rival.precision), *latency, size])
    columns = ["outside of the family", "px", "top-1 %", "fastest", "predicted ms", "interval", "MB"]
    table(columns, rows, spare=["MB", "interval", "px"])
    scaled = f"Latencies are scaled from those on {known.processor}, not measured here. " if budget.latency_ms else ""
    print(
        f"They should be more accurate within {budget} than the chosen one, whose best published weights reach {found.top1:.1f}%. "
        f"{scaled}Top-1 is the published one, in float32."
    )


def _fastest(candidate: Candidate) -> list[str]:
    fastest = candidate.fastest
    if not fastest:
        return [""] * 5
    latency = fastest.metrics.latency
    shown = [str(fastest.form), f"{latency.p50:.2f}", f"{latency.ci[0]:.2f} … {latency.ci[1]:.2f}"]
    return (
        [*shown, "", ""] if candidate.predicted else [*shown, f"{latency.p90:.2f}", f"{fastest.metrics.costs['size_mb'] or 0:.1f}"]
    )


def latency_models(models: Mapping[FormKey, LatencyModel]) -> None:
    """How well the networks of a profile are predicted from each other."""
    rows = [[str(form), f"{100 * m.median:.1f}", f"{100 * m.worst:.1f}", str(len(m.errors))] for form, m in models.items()]
    table(["precision", "median error %", "worst %", "networks"], rows, title="each network predicted from the others")


def variants(networks: Sequence[Variant], classes: int) -> None:
    """What each variant is built of and costs, and the weights to start from: in two tables, which fit 80 columns."""
    rows = []
    for v in networks:
        cost = v.cost(classes)
        numbers = [f"{cost.params / 1e6:.2f}", f"{cost.flops / 1e9:.3f}", f"{cost.activations / 1e6:.2f}"]
        rows.append([v.name, str(v.resolution), *numbers, f"{v.top1:.1f}" if v.top1 else "", v.activation, v.padding])
    columns = ["variant", "px", "M params", "GMACs", "M activations", "ImageNet %", "activation", "padding"]
    table(columns, rows, spare=["padding", "M activations", "activation"])
    if weights := [[v.name, v.hub] for v in networks if v.hub]:
        table(["variant", "weights of --weights auto, on the Hugging Face hub"], weights)


def targets(found: Sequence[Target]) -> None:
    """The devices, with what they run and their default budget."""
    rows = []
    for t in found:
        precisions = ", ".join(map(str, t.precisions))
        rows.append([t.name, t.backend, f"{t.latency_ms:g}" if t.latency_ms else "", precisions, t.description])
    columns = ["target", "backend", "default ms", "precisions", "device"]
    table(columns, rows, spare=["default ms", "backend"], prose=["precisions", "device"])


def benchmark(result: BundleBenchmark) -> None:
    """One line with the latency, and whatever else was measured."""
    timed, costs = result.metrics.latency, result.metrics.costs
    print(f"p50 {timed.p50:.2f} ms ({timed.ci[0]:.2f} to {timed.ci[1]:.2f})  p90 {timed.p90:.2f}  p99 {timed.p99:.2f}", end="")
    print(f"  first {timed.first:.2f}  {costs['fps']:.0f} frames per second  {costs['memory_mb']:.0f} MB of memory")


def requalification(result: Requalification, host: str = "") -> None:
    """What was compared, then the environment: as the manifest has it, and now."""
    rows = [[line.what, line.manifest, line.now, line.outcome] for line in (*result.results, *result.environment)]
    title = f"{f'{host}: ' if host else ''}{result.bundle}, {result.precision}: what its manifest says, and what is found now"
    table(["compared", "manifest", "now", "outcome"], rows, title=printable(title), prose=["manifest", "now", "outcome"])


def requalified_elsewhere(answers: Sequence[HostAnswer]) -> None:
    """A table for each host, and a line for one that has none."""
    from ..requalification import Requalification

    for answer in answers:
        if "results" in answer.result:
            requalification(from_json(answer.result, Requalification, answer.host), answer.host)
        elif answer.error is not None:
            print(printable(f"{answer.host}: {answer.error}"))


def examination(found: Sequence[Examined]) -> None:
    """What this machine has, and what to do about what it lacks."""
    rows = [["ok" if f.ok else "!", f.what, f.found, "" if f.ok else f.remedy] for f in found]
    table(["", "part", "found", "what to do"], rows, prose=["part", "found", "what to do"])


def findings(found: Sequence[Finding]) -> None:
    """What the linter says, errors first."""
    rows = [[f.rule, "ERROR" if f.error else "warning", f.node, f.message, f.remedy] for f in found]
    table(["rule", "", "node", "finding", "remedy"], rows, prose=["node", "finding", "remedy"])


def engines(compiled: Compilation) -> None:
    """Every engine that was built on this device, the one that ships marked."""
    rows = []
    for e in compiled.engines:
        latency = [""] * 3
        if e.latency_ms:
            low, high = e.latency_ms.ci
            latency = [f"{e.latency_ms.p50:.2f}", f"{low:.2f} … {high:.2f}", f"{e.latency_ms.p90:.2f}"]
        drop = f"{e.accuracy.drop:+.2f}" if e.accuracy and e.accuracy.drop is not None else ""
        off = "" if e.difference is None else f"{e.difference:.3f}"
        rows.append([str(e.precision), *latency, drop, off, f"{e.size_mb:.1f}", "yes" if e.passed else "NO"])
    columns = ["engine", "p50 ms", "95% interval", "p90", "drop", "off its graph", "MB", "passed"]
    spare = ["p90", "off its graph", "MB", "95% interval"]
    table(columns, rows, title="engines built here", marked=compiled.engines.index(compiled.shipped), spare=spare)
    by_class([e.accuracy for e in compiled.engines if e.accuracy])
    print(f"{compiled.verdict}\n\nbundle: {compiled.bundle.path}")


def engine_layers(layers: Sequence[Layer]) -> None:
    """What TensorRT made of the graph: each layer's precision, and where it only changes a format."""
    rows = [[layer.name[:60], layer.kind, layer.precision, "reformat" if layer.reformat else ""] for layer in layers]
    table(["layer", "kind", "precision", ""], rows, spare=["kind"])
    counts = Counter(layer.precision or "unknown" for layer in layers if not layer.reformat)
    parts = [f"{count} in {precision}" for precision, count in counts.most_common()]
    print(f"{len(layers)} layers: {', '.join(parts)}; {sum(layer.reformat for layer in layers)} reformats.")


def hosts(metrics: Metrics, percentile: int) -> None:
    """A row a host, where there are several."""
    if not metrics.hosts:
        return
    slowest = max(metrics.hosts, key=lambda name: metrics.hosts[name].at(percentile))
    rows = []
    for name, latency in metrics.hosts.items():
        mark = "slowest" if name == slowest else ""
        rows.append([name, f"{latency.at(percentile):.2f}", f"{latency.upper_bound(percentile):.2f}", mark])
    table(["host", f"p{percentile} ms", "at most", ""], rows, title="the same on each host", prose=[""])


def fleet(answers: Sequence[HostAnswer]) -> None:
    """A row a host; at its end what went wrong there, or which is the slowest and which the least accurate."""
    rows = [_host(a) for a in answers]
    slowest, worst = (_extreme(rows, column, pick) for column, pick in (("p50 ms", max), ("top-1 %", min)))
    for row in rows:
        marks = [mark for mark, mine in (("slowest", row is slowest), ("least accurate", row is worst)) if mine]
        row["note"] = row.get("note", "") + ", ".join(marks)
    columns = ["host", "precision", "top-1 %", "drop", "photos", "p50 ms", "95% interval", "p90", "note"]
    shown = [c for c in columns if any(row.get(c) for row in rows)]
    spare = ["p90", "photos", "95% interval"]
    table(shown, [[row.get(c, "") for c in shown] for row in rows], spare=spare, prose=["note"])


def _host(answer: HostAnswer) -> dict[str, str]:
    from ..remote.fleet import Figures

    row = {"host": answer.host, "note": answer.error or ""}
    if answer.error is not None and error_for(answer.exit_code) is not Unreliable:
        return row
    figures = from_json(answer.result, Figures, answer.host)
    row |= {"precision": figures.precision}
    if accuracy := figures.accuracy:
        row |= {"top-1 %": f"{accuracy.top1:.2f}", "photos": str(accuracy.images)}
        row |= {} if accuracy.drop is None else {"drop": f"{accuracy.drop:+.2f}"}
    if timing := figures.timing:
        low, high = timing.ci
        row |= {"p50 ms": f"{timing.p50:.2f}", "95% interval": f"{low:.2f} … {high:.2f}", "p90": f"{timing.p90:.2f}"}
    return row


def _extreme(rows: Sequence[dict[str, str]], column: str, pick: Callable[..., dict[str, str]]) -> dict[str, str] | None:
    """The row that has the largest or smallest figure, where they differ."""
    having = [row for row in rows if row.get(column)]
    if len({row[column] for row in having}) < 2:
        return None
    return pick(having, key=lambda row: float(row[column]))
