"""What a person reads: short tables on a terminal, plain ones elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", marked: int | None = None) -> None:
    """Print rows under their columns; the `marked` one is bold, with an arrow in front. First column left, the others right."""
    if marked is not None:
        columns = ["", *columns]
        rows = [["→" if i == marked else "", *row] for i, row in enumerate(rows)]
    left = 2 if marked is not None else 1
    if not sys.stdout.isatty():
        widths = [max(len(r[i]) for r in [columns, *rows]) for i in range(len(columns))]
        if title:
            print(title)
        for row in [columns, *rows]:
            print(
                "  ".join(
                    cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
            )
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i < left else "right")
    for i, row in enumerate(rows):
        grid.add_row(*row, style="bold" if i == marked else None)
    Console().print(grid)


def cameras(summary: dict[str, Any]) -> None:
    """What was seen of each source, and how old its labels were."""
    columns = [
        "source",
        "frames",
        "labels",
        "dropped",
        "fps",
        "age p50 ms",
        "p90",
        "p99",
        "waiting",
        "inference",
        "output",
        "outages",
    ]
    rows = []
    for r in summary["sources"]:
        ages = [f"{ms:.1f}" if ms is not None else "" for ms in r["age_ms"].values()]
        parts = [f"{p['p50']:.1f}" if p["p50"] is not None else "" for p in r["parts_ms"].values()]
        outages = f"{len(r['outages'])}, {sum(r['outages']):.0f} s" if r["outages"] else "none"
        counts = [str(r[name]) for name in ("frames", "labels", "dropped")]
        rows.append([r["source"], *counts, f"{r['fps']:.1f}", *ages, *parts, outages])
    warm = f", {summary['temperature']:.0f} °C" if summary["temperature"] else ""
    medians = [r["age_ms"]["p50"] or 0.0 for r in summary["sources"]]
    oldest = medians.index(max(medians)) if len(medians) > 1 else None
    marked = "" if oldest is None else "; the oldest labels marked"
    title = f"{summary['seconds']:.0f} s{warm}; waiting, inference and output are medians in ms{marked}"
    table(columns, rows, title=title, marked=oldest)


def cameras_elsewhere(answers: Sequence[dict[str, Any]]) -> None:
    """One table of every host's cameras, and a line for each host that failed."""
    told = {a["host"]: a["summary"] for a in answers if "summary" in a}
    if told:
        rows = [{**row, "source": f"{host} {row['source']}"} for host, summary in told.items() for row in summary["sources"]]
        warmest = max((s["temperature"] for s in told.values() if s["temperature"]), default=None)
        cameras({"sources": rows, "seconds": max(s["seconds"] for s in told.values()), "temperature": warmest})
    for answer in answers:
        if "error" in answer:
            print(f"{answer['host']}: {answer['error']}")


def steps(reports: Sequence[Any], *, shipped: str) -> None:
    """The accuracy of each step against the float model."""
    labelled = reports[0].top1 is not None
    columns = (
        ["step", "top-1 %", "top-5 %", "drop", "95% interval", "agreement %", "passed", "proven"]
        if labelled
        else ["step", "agreement %", "passed"]
    )
    rows = []
    for i, r in enumerate(reports):
        passed = ("yes" if r.passed else "NO") if i else ""
        if not labelled:
            rows.append([r.step, f"{r.agreement:.2f}", passed])
            continue
        drop = [f"{r.drop:+.2f}", f"{r.drop_ci[0]:+.2f} … {r.drop_ci[1]:+.2f}"] if i else ["", ""]
        proven = "yes" if r.proven else f"with ~{r.needed} photos" if r.needed else "no"
        agreement, proven = (f"{r.agreement:.2f}", proven) if i else ("", "")
        rows.append([r.step, f"{r.top1:.2f}", f"{r.top5:.2f}", *drop, agreement, passed, proven])
    marked = next((i for i, r in enumerate(reports) if r.step == shipped), None)
    table(columns, rows, title=f"accuracy on {reports[0].images} photos", marked=marked)


def ladder(attempts: Sequence[dict[str, Any]]) -> None:
    """What was tried for INT8, in order."""
    rows = []
    for a in attempts:
        judged = "passed" in a
        drop = f"{a['drop']:+.2f}" if judged and a["drop"] is not None else ""
        agreement = f"{a['agreement']:.2f}" if judged else ""
        outcome = a["note"] or ("passed" if a["passed"] else "missed the gate")
        rows.append([a["remedy"], a["activation"], drop, agreement, f"{a['seconds']:.0f}", outcome])
    table(["remedy", "activation", "drop", "agreement %", "seconds", "outcome"], rows, title="remedies for INT8")


def layers(errors: Sequence[Any]) -> None:
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
    table(columns, rows, title="layers by the error they add (squared, of the float signal's power)")


def siblings(rows: Sequence[Any], shipped: Any) -> None:
    """Latency of every form of the model, timed in one run."""
    base = min(r.latency.p50 for r in rows if r.form.precision == "float32")
    lines = [
        [
            r.form.precision,
            r.form.activation,
            r.form.runtime,
            f"{r.latency.p50:.2f}",
            f"{r.latency.ci[0]:.2f} … {r.latency.ci[1]:.2f}",
            f"{r.latency.p90:.2f}",
            f"{r.latency.p99:.2f}",
            f"{base / r.latency.p50:.2f}×",
            f"{r.figures.size_mb:.1f}",
        ]
        for r in rows
    ]
    columns = ["form", "activation", "runtime", "p50 ms", "95% interval", "p90", "p99", "speed", "MB"]
    table(columns, lines, title="latency of one photo, in interleaved blocks", marked=[r.form for r in rows].index(shipped))


def choice(made: Any) -> None:
    """Every candidate of a pick, the chosen one marked, those on the frontier with a dot."""
    rows = []
    for c in made.table:
        v = c.variant
        known = [v.name, str(v.resolution), f"{c.gflops:.2f}", f"{c.mparams:.1f}", f"{c.accuracy:.1f}"]
        rows.append([*known, *_fastest(c), "•" if c in made.frontier else ""])
    predicted = made.chosen.predicted
    columns = ["variant", "px", "GFLOPs", "M params", "expected %", "fastest", "predicted ms" if predicted else "p50 ms"]
    table([*columns, "95% interval", "p90", "MB", "frontier"], rows, marked=made.table.index(made.chosen))


def _fastest(candidate: Any) -> list[str]:
    if not candidate.forms:
        return [""] * 5
    form, latency = candidate.forms[0], candidate.forms[0].figures.latency
    interval = f"{latency.ci[0]:.2f} … {latency.ci[1]:.2f}"
    if candidate.predicted:
        return [form.label, f"{latency.p50:.2f}", interval, "", ""]
    return [form.label, f"{latency.p50:.2f}", interval, f"{latency.p90:.2f}", f"{form.figures.size_mb:.1f}"]


def findings(found: Sequence[Any]) -> None:
    """What the linter says, errors first."""
    rows = [[f.rule, "ERROR" if f.error else "warning", f.node, f.message, f.remedy] for f in found]
    table(["rule", "", "node", "finding", "remedy"], rows)


def engines(compiled: Any) -> None:
    """Every engine that was built on this device, the one that ships marked."""
    rows = []
    for e in compiled.engines:
        latency = (
            [f"{e.latency.p50:.2f}", f"{e.latency.ci[0]:.2f} … {e.latency.ci[1]:.2f}", f"{e.latency.p90:.2f}"]
            if e.latency
            else [""] * 3
        )
        drop = f"{e.report.drop:+.2f}" if e.report and e.report.drop is not None else ""
        off = "" if e.difference is None else f"{e.difference:.3f}"
        rows.append([e.precision, *latency, drop, off, f"{e.size_mb:.1f}", "yes" if e.passed else "NO"])
    columns = ["engine", "p50 ms", "95% interval", "p90", "drop", "off its graph", "MB", "passed"]
    table(columns, rows, title="engines built here", marked=compiled.engines.index(compiled.shipped))
    print(f"{compiled.verdict}\n\nbundle: {compiled.bundle.path}")


def engine_layers(layers: Sequence[Any]) -> None:
    """What TensorRT made of the graph: each layer's precision, and where it only changes a format."""
    rows = [[layer.name[:60], layer.kind, layer.precision, "reformat" if layer.reformat else ""] for layer in layers]
    table(["layer", "kind", "precision", ""], rows)
    counts = Counter(layer.precision or "unknown" for layer in layers if not layer.reformat)
    parts = [f"{count} in {precision}" for precision, count in counts.most_common()]
    print(f"{len(layers)} layers: {', '.join(parts)}; {sum(layer.reformat for layer in layers)} reformats.")


def hosts(figures: Any, percentile: int) -> None:
    """A row a host, where there are several."""
    if figures.hosts:
        slowest = max(figures.hosts, key=lambda name: figures.hosts[name].at(percentile))
        rows = []
        for name, latency in figures.hosts.items():
            mark = "slowest" if name == slowest else ""
            rows.append([name, f"{latency.at(percentile):.2f}", f"{latency.surely(percentile):.2f}", mark])
        table(["host", f"p{percentile} ms", "at most", ""], rows, title="the same on each host")


def fleet(answers: Sequence[dict[str, Any]]) -> None:
    """A row a host; at its end what went wrong there, or which is the slowest and which the least accurate."""
    rows = [_host(a) for a in answers]
    slowest, worst = (_extreme(rows, column, pick) for column, pick in (("p50 ms", max), ("top-1 %", min)))
    for row in rows:
        marks = [mark for mark, mine in (("slowest", row is slowest), ("least accurate", row is worst)) if mine]
        row["note"] = row.get("note", "") + ", ".join(marks)
    columns = ["host", "form", "top-1 %", "drop", "photos", "p50 ms", "95% interval", "p90", "note"]
    shown = [c for c in columns if any(row.get(c) for row in rows)]
    table(shown, [[row.get(c, "") for c in shown] for row in rows])


def _host(answer: dict[str, Any]) -> dict[str, str]:
    if "error" in answer:
        return {"host": answer["host"], "note": answer["error"]}
    engine: dict[str, Any] = next((e for e in answer.get("engines", []) if e["precision"] == answer["precision"]), {})
    accuracy = answer if "top1" in answer else engine.get("accuracy") or {}
    latency = answer.get("latency_ms") or engine.get("latency_ms")
    row = {"host": answer["host"], "form": answer["precision"]}
    if accuracy:
        row |= {"top-1 %": f"{accuracy['top1']:.2f}", "photos": str(accuracy["images"])}
        row |= {"drop": f"{accuracy['drop']:+.2f}"} if accuracy.get("drop") is not None else {}
    if latency:
        low, high = latency["ci"]
        row |= {"p50 ms": f"{latency['p50']:.2f}", "95% interval": f"{low:.2f} … {high:.2f}", "p90": f"{latency['p90']:.2f}"}
    return row


def _extreme(rows: Sequence[dict[str, str]], column: str, pick: Any) -> dict[str, str] | None:
    """The row that has the largest or smallest figure, where they differ."""
    having = [row for row in rows if row.get(column)]
    if len({row[column] for row in having}) < 2:
        return None
    found: dict[str, str] = pick(having, key=lambda row: float(row[column]))
    return found
