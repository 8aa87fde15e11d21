"""Write the numbers of README.md and of docs/{benchmarks,camera,reliability}.md from results/*.json:
`python benchmarks/readme.py`.

A test compares the files with the results.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import frontier
import result_files
from data import CPU_TASKS
from peers import picture

from edgeeff.measurement.latency import Latency, ratio
from edgeeff.precision import Precision

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BENCHMARKS = HERE.parent / "docs" / "benchmarks.md"
CAMERA = HERE.parent / "docs" / "camera.md"
RELIABILITY = HERE.parent / "docs" / "reliability.md"
RIVALS = HERE.parent / "edgeeff" / "selection" / "rivals.json"
TOLD = 10.0  # points: a file that loses more is of no use, however well that was foretold
BEGIN, END = "<!-- numbers: written by benchmarks/readme.py -->", "<!-- end of numbers -->"


def load(name: str) -> dict[str, Any]:
    return result_files.read(result_files.FOLDER / f"{name}.json")


def summary() -> str:
    """The README's table, as Markdown: for each fit the best float32 form, and the form that shipped."""
    lines = [
        "| network | top-1 %, float32 → shipped | drop on test photos | on those that choose | p50 ms, float32 → shipped | speed |",
        "|---|---|---|---|---|---|",
    ]
    fits = {
        "V2-B0": "v2-b0",
        "V2-B0, made smaller": "reduced",
        "Lite0": "lite0",
    }
    for label, name in fits.items():
        fit = load(name)["measured"]
        base = min((s for s in fit["siblings"] if s["precision"] == "float32"), key=lambda s: s["latency_ms"]["p50"])
        sibling, (original, test) = shipped(fit), fit["held_out"]["steps"]
        before, after = base["latency_ms"]["p50"], sibling["latency_ms"]["p50"]
        lines.append(row(label, original, test, sibling, (before, after)))
    tuned = {"B0, fine-tuned on flowers": "flowers12"}
    for label, name in tuned.items():
        measured = load(name)["measured"]
        p50 = measured["p50_ms"]
        before = min(p50["OpenVINO"], p50["ONNX Runtime"])
        lines.append(row(label, *measured["steps"], shipped(measured["smaller"]), (before, p50["smaller"])))
    names = " ".join([*fits.values(), *tuned.values()])
    return "\n".join([f"{machine()}. `python benchmarks/run.py {names}` measures it again.", "", *lines])


def row(label: str, before: dict[str, Any], after: dict[str, Any], choosing: dict[str, Any], p50: tuple[float, float]) -> str:
    """Accuracy before and after on test photos, the loss of what shipped on those that chose it, and latencies."""
    slow, fast = p50
    return (
        f"| {label} | {before['top1']:.2f} → {after['top1']:.2f} ({choosing['precision']}) "
        f"| {dropped(after)}, {after['images']} photos | {dropped(choosing)} | {slow:.2f} → {fast:.2f} | **{slow / fast:.2f}×** |"
    )


def shipped(fit: dict[str, Any]) -> dict[str, Any]:
    """The form that a fit shipped, of those that it measured."""
    alike = ("precision", "activation", "remedy", "left_out", "resolution")
    return next(s for s in fit["siblings"] if all(s[name] == fit[name] for name in alike) and not s["reference"])


def dropped(step: dict[str, Any]) -> str:
    low, high = step["drop_ci"]
    return f"{step['drop']:+.2f} ({low:+.2f} to {high:+.2f})"


def machine() -> str:
    """Where, with what and when the CPU's numbers were measured."""
    facts = load("v2-b0")
    versions, chip = facts["versions"], facts["device"]
    names = ", ".join(f"{n} {versions[n]}" for n in ("openvino", "nncf", "onnxruntime", "torch"))
    return f"Measured on 2 virtual cores of a shared {chip['cpu']} ({', '.join(chip['flags'])}), {names}, {facts['date']}"


def render() -> str:
    """The section of docs/benchmarks.md between the markers, as Markdown."""
    parts = [
        f"{machine()}. "
        "Latencies are of one photo, from interleaved blocks of one run; on a shared machine quote the ratio. `make bench` "
        "reproduces all of it, but for what needs another host, from `../shared/data` (`--data` names another folder); "
        "`results/*.json` in `benchmarks/` hold the raw values.",
        "**Post-training INT8 of ImageNet weights**, calibrated on 300 of 1000 photos, judged on 650 others "
        "(`python benchmarks/run.py v2-b0 lite0`):",
        forms("v2-b0", "lite0"),
        "These photos are easier than the full validation set: read the differences, not the level. "
        f"The whole fit took {whole('v2-b0')} and {whole('lite0')} seconds.",
        "**Transfer**: B0's ImageNet backbone, whose last projection, head and classifier are new, fine-tuned for 10 epochs with "
        "Hardswish and made smaller as far as the gate allows (`--adapt auto --max-drop 1`), against one fine-tuned with Swish "
        "in float32, on test photos that no choice saw (`python benchmarks/run.py flowers12`):",
        transferred("flowers12"),
        "Other programs used the machine meanwhile, and the fit had less time than on an idle one: a step more may be possible.",
        "**Hardswish for Swish**: V2-B0's activations swapped, recovered by matching its blocks to the original's on the 1000 "
        "photos, without their labels (`python benchmarks/run.py hardswish`). Measured before recovery learned from random crops, "
        "on all 1300 photos. Drops are against the original in float:",
        swapped("hardswish"),
        f"The whole fit, recovery included, took {whole('hardswish')} seconds.",
        "**Made smaller**: V2-B0 with `--adapt auto` as far as a gate of 3 points allows, from the 1000 photos without labels; the "
        "INT8 forms, judged on 650 photos (`python benchmarks/run.py reduced`):",
        smaller("reduced"),
        f"What shipped loses {dropped(load('reduced')['measured']['held_out']['steps'][1])} points on 650 others that no choice "
        f"saw. The whole fit took {whole('reduced')} seconds.",
        *with_matrix_unit(),
        "**Choosing and test photos**: what each fit above lost on the 650 photos that chose among forms, and on the 650 test "
        "photos, which judge what ships and, in some fits, the forms beside it. Both intervals are those of chance:",
        unseen(),
        *post_training(),
        "**TensorRT's scheme**: signed, symmetric, per-tensor activations, as a Q/DQ graph without an error of the linter, judged "
        "by ONNX Runtime; no GPU was at hand, so nothing is said of its speed there (`python benchmarks/run.py v2-b0-symmetric "
        "trained hardswish-symmetric flowers12-symmetric trashnet-symmetric min-max-symmetric`):",
        symmetric(),
        made_smaller_symmetric(),
        "**For a Jetson Orin Nano**: what `make jetson-v2-b0` sends there, judged here by ONNX Runtime, built by TensorRT-RTX "
        "without a GPU; its speed is not known (`python benchmarks/run.py v2-b0-jetson`):",
        jetson(),
        *beside(),
        *beside_on_cpus(),
        *rivals(),
        f'**`--activation auto`** on the same weights for this CPU (`python benchmarks/run.py v2-b0-auto`): "{auto()}"',
        f"**Pick** (`python benchmarks/run.py pick`): {picks()}",
        f"**Pick on a busy machine** (`python benchmarks/run.py noise`): {busy()}",
        "**Predicted latency**: float32 of each of the 20 variants computed from measurements of the other 19, against its own "
        "(`python benchmarks/run.py predicted predicted-onnxruntime`; ONNX Runtime's were measured once each, not twice):",
        predictions(),
        f"**On another host** (`python benchmarks/run.py --on USER@HOST remote`): {remote()}",
        *calibrated(),
        *improved(),
        "**On a camera**: V2-B0 from a frame to its label (`python benchmarks/run.py camera clients overload`). "
        "End-to-end latencies are in ms from the decoded frame to the label, ten frames a second, and contain its conversion to "
        "BGR. The ratio is decoding + latency "
        "against the same work alone at the same pace, one thing after the other, in turn five times:",
        cameras(),
        overload(),
        "**Evaluation** of the 1300 photos with the compiled V2-B0, against OpenVINO's `benchmark_app` in throughput mode on the "
        f"same file, in turn, three times (`python benchmarks/run.py throughput`): {evaluation()}",
    ]
    return "\n\n".join(parts)


def whole(name: str) -> str:
    return f"{load(name)['measured']['total_seconds']:.0f}"


def transferred(*names: str) -> str:
    """Networks made smaller against those with Swish in float32."""
    lines = [
        "| photos | top-1 %, Swish in float32 | made smaller | drop, 95% interval | px | parts out "
        "| against OpenVINO | against ONNX Runtime | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        m = load(name)["measured"]
        (before, after), made, minutes = m["steps"], m["smaller"], m["smaller"]["total_seconds"] / 60
        speeds = " | ".join(f"{times:.2f}× ({low:.2f} to {high:.2f})" for times, low, high in m["speeds"].values())
        lines.append(
            f"| {name}, {after['images']} | {before['top1']:.2f} | {after['top1']:.2f} | {dropped(after)} "
            f"| {made['resolution']} | {len(made['left_out'])} | {speeds} | {minutes:.0f} |"
        )
    return "\n".join(lines)


def forms(*names: str) -> str:
    lines = [
        "| model | form | runtime | top-1 % | drop, 95% interval | agreement % | p50 ms | against the best float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        fit = load(name)["measured"]
        steps = {s["step"]: s for s in fit["steps"]}
        base = min(s["latency_ms"]["p50"] for s in fit["siblings"] if s["precision"] == "float32")
        for sibling in fit["siblings"]:
            shipped = sibling["precision"] == fit["precision"] and sibling["runtime"] == "openvino"
            step = steps["onnx" if sibling["runtime"] == "onnxruntime" else sibling["precision"]]
            low, high = step["drop_ci"]
            mark = "**" if shipped else ""
            p50 = sibling["latency_ms"]["p50"]
            lines.append(
                f"| {name} | {mark}{sibling['precision']}{mark} | {sibling['runtime']} | {step['top1']:.2f} "
                f"| {step['drop']:+.2f} ({low:+.2f} to {high:+.2f}) | {step['agreement']:.2f} | {p50:.2f} "
                f"| {mark}{base / p50:.2f}×{mark} |"
            )
    return "\n".join(lines)


def swapped(name: str) -> str:
    lines = [
        "| form | activation | runtime | top-1 % | drop, 95% interval | agreement % | p50 ms | against the best float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    siblings = load(name)["measured"]["siblings"]
    base = min(s["latency_ms"]["p50"] for s in siblings if s["precision"] == "float32")
    for s in siblings:
        p50 = s["latency_ms"]["p50"]
        lines.append(
            f"| {s['precision']} | {s['activation']} | {s['runtime']} | {judged(s)} | {p50:.2f} | {base / p50:.2f}× |",
        )
    return "\n".join(lines)


def smaller(name: str) -> str:
    """The curve: every form in INT8, the slowest first."""
    lines = [
        "| form | activation | px | parts out | top-1 % | drop, 95% interval | agreement % | p50 ms | against the best float32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    siblings = load(name)["measured"]["siblings"]
    base = min(s["latency_ms"]["p50"] for s in siblings if s["precision"] == "float32")
    for s in sorted(siblings, key=lambda s: -s["latency_ms"]["p50"]):
        if Precision(s["precision"]).quantized:
            p50, parts = s["latency_ms"]["p50"], len(s["left_out"]) or ""
            lines.append(
                f"| {s['precision']} | {s['activation']} | {s['resolution']} | {parts} | {judged(s)} | {p50:.2f} "
                f"| {base / p50:.2f}× |"
            )
    return "\n".join(lines)


def judged(step: dict[str, Any]) -> str:
    low, high = step["drop_ci"]
    return f"{step['top1']:.2f} | {step['drop']:+.2f} ({low:+.2f} to {high:+.2f}) | {step['agreement']:.2f}"


def seeded(*names: str) -> str:
    """The same fit with several seeds, each judged on the test photos that its seed draws."""
    lines = [
        "| seed | top-1 %, Swish in float32 | made smaller | drop from its own float32, 95% interval | px | form | parts out "
        "| against OpenVINO | against ONNX Runtime | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, name in enumerate(names):
        m = load(name)["measured"]
        before, after, made = m["swish"]["held_out"]["steps"][0], m["smaller"]["held_out"]["steps"][1], m["smaller"]
        speeds = " | ".join(f"{times:.2f}× ({low:.2f} to {high:.2f})" for times, low, high in m["speeds"].values())
        lines.append(
            f"| {seed} | {before['top1']:.2f} | {after['top1']:.2f} | {dropped(after)} | {made['resolution']} "
            f"| {made['precision']} | {len(made['left_out'])} | {speeds} | {made['total_seconds'] / 60:.0f} |"
        )
    return "\n".join(lines)


def with_matrix_unit() -> list[str]:
    """The same fits on a CPU with AMX, where bf16 is as fast as INT8."""
    names = {"V2-B0": "v2-b0", "V2-B0, made smaller": "reduced", "Lite0": "lite0"}
    fits = {label: load(f"xeon/{name}") for label, name in names.items()}
    lines = [
        "| network | form | activation | parts out | drop, 95% interval | p50 ms | against the best float32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, fit in fits.items():
        own = [s for s in fit["measured"]["siblings"] if s["runtime"] == "openvino"]
        base = own[0]["latency_ms"]["p50"]  # as it was, in float32
        for s in own:
            p50, mark = s["latency_ms"]["p50"], "**" if s == shipped(fit["measured"]) else ""
            lines.append(
                f"| {label} | {mark}{s['precision']}{mark} | {s['activation']} | {len(s['left_out']) or ''} | {dropped(s)} "
                f"| {p50:.2f} | {mark}{base / p50:.2f}×{mark} |"
            )
    facts, seeds = fits["V2-B0"], ("xeon/flowers12", "xeon/flowers12-seed-1", "xeon/flowers12-seed-2")
    versions, chip = facts["versions"], facts["device"]
    tests = "; ".join(f"{label} {dropped(fit['measured']['held_out']['steps'][1])} points" for label, fit in fits.items())
    trash = load("xeon/trashnet")
    return [
        f"**On a CPU with a matrix unit (AMX)**: the same fits on 2 of the 16 cores of an {chip['cpu']} "
        f"({', '.join(chip['flags'])}), openvino {versions['openvino']}, {facts['date']}; torch trained on an NVIDIA H200. "
        "Other fits ran on the other cores, so quote ratios within one fit only. AMX multiplies bf16 nearly as fast as INT8, and "
        "bf16 loses next to nothing, so it is what a fit ships there (`python benchmarks/run.py --results benchmarks/results/xeon "
        "v2-b0 reduced lite0`):",
        "\n".join(lines),
        f"What shipped loses on 650 test photos: {tests}.",
        "B0 fine-tuned on flowers12 on the same machine, with three seeds, which also draw the test photos (`flowers12 "
        "flowers12-seed-1 flowers12-seed-2`): with so few photos, what is left out and what that costs depends on the seed.",
        seeded(*seeds),
        f"B0 fine-tuned on trashnet on {trash['device']['cores']} cores of such a CPU, which trained too, "
        f"openvino {trash['versions']['openvino']}, {trash['date']} (`trashnet`):",
        seeded("xeon/trashnet"),
    ]


def unseen() -> str:
    """What the same file lost on the photos that chose and on the others, for every form that was judged on both."""
    lines = ["| network | form | drop on those that choose | drop on test photos | apart |", "|---|---|---|---|---|"]
    fits = {"V2-B0": "v2-b0", "V2-B0, made smaller": "reduced", "Lite0": "lite0"}
    for label, name in fits.items():
        for place, file in (("", name), (", AMX", f"xeon/{name}")):
            fit = load(file)["measured"]
            choosing = {s["step"]: s for s in fit["steps"]}
            for test in fit["held_out"]["steps"][1:]:
                form = test["step"].removesuffix(", test photos")
                before = choosing[form]
                apart = test["drop"] - before["drop"]
                lines.append(f"| {label}{place} | {form} | {dropped(before)} | {dropped(test)} | {apart:+.2f} |")
    return "\n".join(lines)


def post_training() -> list[str]:
    """edgeeff's post-training INT8 beside NNCF's."""
    facts = load("ptq")
    lines = [
        "| network | by | weights | top-1 % | drop, 95% interval | agreement % | error of the logits | times as fast as float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, m in facts["measured"].items():
        for row in m["rows"]:
            weights = "fewer steps" if row["overflows"] else "whole range"
            faster = "{times:.2f}× ({ci[0]:.2f} to {ci[1]:.2f})".format(**row["faster"]) if row["faster"] else ""
            lines.append(f"| {network} | {row['by']} | {weights} | {judged(row['step'])} | {row['error']:.2f}% | {faster} |")
    chip = facts["device"]
    return [
        f"**Post-training INT8 by edgeeff and by NNCF**, of the same 300 photos, both run by OpenVINO on {chip['cpu']} with "
        f"{', '.join(chip['flags'])}, on the 650 test photos; the error is squared, in percent of the power of the float logits "
        f"(`python benchmarks/run.py ptq`, openvino {facts['versions']['openvino']}, nncf {facts['versions']['nncf']}, "
        f"{facts['date']}). Without VNNI instructions sums of INT8 products overflow, so weights have fewer steps there: NNCF's "
        "half as many, edgeeff's as many as no sum overflows with:",
        "\n".join(lines),
    ]


def symmetric() -> str:
    """Every attempt of the fits in the symmetric scheme."""
    lines = ["| model | remedy | photos | top-1 % | drop, 95% interval | agreement % |", "|---|---|---|---|---|---|"]
    fits = {
        "v2-b0, recipe min-max": "min-max-symmetric",
        "v2-b0": "v2-b0-symmetric",
        "v2-b0, Hardswish": "hardswish-symmetric",
        "flowers12 from B0": "flowers12-symmetric",
        "trashnet from B0": "trashnet-symmetric",
    }
    for label, name in fits.items():
        fit = load(name)["measured"]
        steps = [s for s in fit["steps"] if s["step"].startswith("int8")]
        tried = [a["remedy"] for a in fit["ladder"] if "passed" in a]
        lines += [f"| {label} | {r} | {s['images']} | {judged(s)} |" for r, s in zip(tried, steps, strict=True)]
    for step in load("trained")["measured"]["steps"]:
        if "(quantization-aware)" in step["step"]:
            runtime = ", in OpenVINO" if "OpenVINO" in step["step"] else ""
            lines.append(f"| v2-b0 | quantization-aware training{runtime} | {step['images']} | {judged(step)} |")
    fit = load("xeon/reduced-symmetric")["measured"]
    images = fit["steps"][0]["images"]
    for s in fit["siblings"]:
        if Precision(s["precision"]).quantized:
            size = f", {s['resolution']} px, {len(s['left_out'])} parts out" if s["left_out"] else ""
            lines.append(f"| v2-b0, Hardswish{size}, on a CPU with AMX | {s['remedy']} | {images} | {judged(s)} |")
    return "\n".join(lines)


def made_smaller_symmetric() -> str:
    """What shipped where smaller networks were tried in the symmetric scheme."""
    fit = load("xeon/reduced-symmetric")["measured"]
    parts = len(fit["left_out"])
    return (
        "The last rows are of one fit with `--adapt auto --max-drop 3` (`--results benchmarks/results/xeon reduced-symmetric`): "
        f"it ships the network {f'without {parts} parts' if parts else 'as it was'}, which loses "
        f"{dropped(fit['held_out']['steps'][1])} points on 650 test photos; TensorRT-RTX, without a GPU: {fit['tensorrt_rtx']}."
    )


def picks() -> str:
    """The searches of twenty budgets, against the answer of measuring every variant."""
    measured = load("pick")["measured"]
    budgets, everything, once = measured["budgets"], measured["all"], measured["10 ms"]
    same = sum(b["chosen"][0] == b["chosen"][1] for b in budgets)
    counts = sorted(b["measured"] for b in budgets)
    return (
        f"For {same} of {len(budgets)} random latencies from {min(b['latency_ms'] for b in budgets):g} to "
        f"{max(b['latency_ms'] for b in budgets):g} ms the search names the variant that measuring all {everything['timed']} "
        f"names, given the same measurements, and asks for {counts[0]} to {counts[-1]} of them. From nothing remembered, a pick "
        f"for 10 ms took {once['search']['seconds']:.0f} seconds, measuring all {everything['seconds']:.0f}, asking again "
        f"{once['again']['seconds']:.1f}."
    )


def busy() -> str:
    """Picks while another program takes one core."""
    runs = load("noise")["measured"]["runs"]
    chosen = [r["chosen"] for r in runs]
    usual = max(set(chosen), key=chosen.count)
    said = sum(bool(r["disturbed"]) for r in runs)
    return (
        f"With one of the two cores taken by another program, {chosen.count(usual)} of {len(runs)} picks from nothing remembered "
        f"name {usual}; {said} of {len(runs)} say that the machine is too noisy to rely on that."
    )


def predictions() -> str:
    lines = ["| runtime, threads, form | median error % | worst % |", "|---|---|---|"]
    for name, m in {**load("predicted")["measured"], **load("predicted-onnxruntime")["measured"]}.items():
        lines.append(f"| {name} | {100 * m['median']:.1f} | {100 * m['worst']:.1f} |")
    return "\n".join(lines)


def calibrated() -> list[str]:
    """How far probabilities can be believed; nothing where it was not measured yet."""
    if not (HERE / "results" / "calibrated.json").exists():
        return []
    lines = [
        "| network | form | temperature | test photos | float32 % | before % | after % | by chance % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, m in load("calibrated")["measured"].items():
        errors = " | ".join(f"{m[key]['error']:.2f}" for key in ("float32", "before", "after"))
        photos, by_chance = m["after"]["photos"], m["after"]["by_chance"]
        lines.append(f"| {name} | {m['precision']} | {m['temperature']:.3g} | {photos} | {errors} | {by_chance:.2f} |")
    others = [
        "| network | top-1 of test photos | false alarms there | other things that get the label |",
        "|---|---|---|---|",
    ]
    for name, m in load("calibrated")["measured"].items():
        if m["foreign"]:
            told = "; ".join(f"{things} {share(found)} of {found['photos']}" for things, found in m["foreign"].items())
            others.append(
                f"| {name} | {m['top1']:.1f} | {share(m['unknown']['test'])} of {m['unknown']['test']['photos']} | {told} |"
            )
    return [
        "**Probabilities**: the expected calibration error (15 bins) on test photos of the float network, and of what ships before "
        "and after the temperature that validation photos fit; by chance: what probabilities that are true show on so many photos "
        "(`python benchmarks/run.py calibrated`):",
        "\n".join(lines),
        "**Unknown photos** of the two that were fine-tuned, at 5% false alarms on the validation photos; by the same command:",
        "\n".join(others),
        *near_and_cost(),
    ]


def near_and_cost() -> list[str]:
    """How many photos of a neighbour are told apart, and what telling costs, where that was measured."""
    if not measured("unknown"):
        return []
    m = load("unknown")["measured"]
    test, near, cost = m["unknown"]["test"], m["near"], m["cost"]
    return [
        "**Near ones** (`python benchmarks/run.py unknown`): a network for every other of the 12 kinds of flowers gives the label "
        f"to {share(near)} of {near['photos']} flowers of the kinds between, and to {share(test)} of {test['photos']} of its own "
        f"test photos. With V2-B0 in the precision that ships, telling takes {cost['percent']:.1f}% more processor time "
        f"({cost['low']:+.1f} to {cost['high']:+.1f})."
    ]


CLAIMS = (
    ("B1 against ResNet-152", "resnet152@224", "efficientnet_b1@240", 5.7, "5.7× on one core of a Xeon E5-2690 (arXiv:1905.11946)"),
    ("B4 against ResNet-50", "resnet50@224", "tf_efficientnet_b4@380", 1.0, "as many multiply-adds (arXiv:1905.11946)"),
    ("V2-S against B4", "tf_efficientnet_b4@380", "tf_efficientnetv2_s@384", 1.0, "faster for its accuracy (arXiv:2104.00298)"),
    ("V2-S against B5", "tf_efficientnet_b5@456", "tf_efficientnetv2_s@384", 1.0, "faster for its accuracy (arXiv:2104.00298)"),
)
"""What papers say of one network against another: the slower and the faster one by their account, how many times as fast at
least, and the claim."""
PIXEL4 = {"lite0": 1.85, "lite1": 1.98, "lite2": 2.17, "lite3": 2.28, "lite4": 2.53}
"""How many times as fast INT8 is on a Pixel 4's CPU, by the latencies in EfficientNet-Lite's README."""


def rivals() -> list[str]:
    """Networks that a user might pick instead; nothing where they were not measured yet."""
    if not measured("frontier"):
        return []
    m, facts = load("frontier")["measured"], load("frontier")
    networks = [n for n in m["networks"] if n["forms"]]
    precisions = list(networks[0]["forms"])
    best = {p: frontier.best(networks, p) for p in precisions}
    lines = [
        f"| network | px | weights | top-1 % | GMACs | {' | '.join(f'{p}, ms | against B0' for p in precisions)} |",
        "|---|---|---|---|---|" + "---|---|" * len(precisions),
    ]
    for n in sorted(networks, key=lambda n: n["top1"]):
        name = f"**{n['variant']}**" if n["variant"] else n["network"]
        cells = []
        for p in precisions:
            mark = "•" if n in best[p] else ""
            cells.append(f"{frontier.mean(n['forms'][p], 'p50'):.2f} {mark}| {frontier.mean(n['forms'][p], 'speed'):.2f}×")
        lines.append(f"| {name} | {n['px']} | {n['weights']} | {n['top1']:.1f} | {n['gmacs']:.2f} | {' | '.join(cells)} |")
    apart = [abs(f["runs"][0]["speed"] / f["runs"][1]["speed"] - 1) for n in networks for f in n["forms"].values()]
    alike = sum(each <= 0.1 for each in apart)
    minutes = (m["runs"][1]["begun"] - m["runs"][0]["begun"]) / 60
    refused = [f"{n['name']}: {n['refused']}" for n in m["networks"] if "refused" in n]
    chip = facts["device"]
    front = "; ".join(f"{p}: {', '.join(n['variant'] or n['name'] for n in best[p])}" for p in precisions)
    return [
        f"**Other networks** (`make bench-frontier`): {len(networks)} networks with random weights, exported from timm, quantized "
        "and timed as a fit's candidates are, all in one run of interleaved blocks, and once more "
        f"{minutes:.0f} minutes later, when {alike} of {len(apart)} ratios differed by 10% or less, and all by "
        f"{100 * max(apart):.0f}% at most; on {chip['cores']} cores of an {chip['cpu']} ({', '.join(chip['flags'])}). The table "
        "has the means of both runs. Top-1 is published "
        f"({'; '.join(m['sources'].values())}), of the float32 network with the weights named; what INT8 costs of it was not "
        "measured. A dot: no other one is both faster and more accurate in that precision.",
        "\n".join(lines),
        *[f"![Top-1 against latency in {p}](frontier-{p}.svg)" for p in precisions],
        f"From the fastest on, none is beaten of {front}." + (f" Not measured: {'; '.join(refused)}." if refused else ""),
        "What is claimed of them elsewhere, and how many times as fast they are here: only what is bold holds on this CPU.",
        claims(networks, precisions),
    ]


def claims(networks: list[dict[str, Any]], precisions: list[str]) -> str:
    """Speeds that papers claim, beside those measured here."""
    by_name = {n["name"]: n for n in networks}
    lines = [f"| | claimed | {' | '.join(precisions)} | top-1 |", "|---|---|" + "---|" * (len(precisions) + 1)]
    for what, slow, fast, least, claim in CLAIMS:
        a, b = by_name[slow], by_name[fast]
        times = [frontier.mean(b["forms"][p], "speed") / frontier.mean(a["forms"][p], "speed") for p in precisions]
        speeds = [held(each, least) for each in times]
        lines.append(f"| {what} | {claim} | {' | '.join(speeds)} | {a['top1']:.1f} → {b['top1']:.1f} |")
    for n in networks:
        if n["variant"] in PIXEL4:
            plain = frontier.mean(n["forms"]["float32"], "speed")
            gains = {p: frontier.mean(n["forms"][p], "speed") / plain for p in precisions}
            speeds = ["" if p == "float32" else held(gain, PIXEL4[n["variant"]]) for p, gain in gains.items()]
            claim = f"INT8 {PIXEL4[n['variant']]:.2f}× as fast as float32 on a Pixel 4 (EfficientNet-Lite's README)"
            lines.append(f"| {n['variant']} against itself in float32 | {claim} | {' | '.join(speeds)} | |")
    return "\n".join(lines)


def held(times: float, claimed: float) -> str:
    """A speed-up, in bold where it is as large as was claimed."""
    return f"**{times:.2f}×**" if times >= claimed else f"{times:.2f}×"


def share(found: dict[str, Any]) -> str:
    """A share of photos with its 95% interval."""
    low, high = found["interval"]
    return f"{found['percent']:.1f}% ({low:.1f} to {high:.1f})"


def improved() -> list[str]:
    """What frames under another lamp gave back; nothing where it was not measured yet."""
    if not measured("improve"):
        return []
    m = load("improve")["measured"]
    rows = [f"| {name} | {t['own']:.2f} | {t['lamp']:.2f} |" for name, t in m["top1"].items()]
    gained = m["top1"]["improved"]["own"] - m["top1"]["before"]["own"]
    return [
        f"**Another lamp**: B0 at 160 px, fine-tuned on trashnet, and `edgeeff improve` with {m['improvement']['frames']} frames "
        f"without labels; top-1 of the INT8 files on {m['photos']} photos that nothing learned from, as they are, and under a "
        "simulated lamp that is dimmer and warmer (`python benchmarks/run.py improve`):",
        "\n".join(["| bundle | own light | under the lamp |", "|---|---|---|", *rows]),
        f"Of what the lamp cost, {100 * m['back']:.0f}% came back in {m['seconds'] / 60:.0f} minutes; in the own light the top-1 "
        f"changed by {gained:+.2f} points. The number of steps and the learning rate were chosen on this network, in float.",
    ]


def remote() -> str:
    """A host that was this machine under another user, over its own SSH server."""
    measured = load("remote")["measured"]
    here, there, cut = (f"{measured['seconds'][name]:.0f}" for name in ("here", "there", "cut"))
    same = [name for name in measured["same"] if name.startswith("model.")]
    return (
        f"V2-B0 fitted here in {here} s; by measuring over ssh, as another user with an empty home, in {there} s; and so once "
        f"more, the connection killed {measured['kills']} times, in {cut} s. The three bundles' {', '.join(same[:-1])} and "
        f"{same[-1]} are the same, bit for bit."
    )


def cameras() -> str:
    lines = [
        "| source | end to end p50 | p90 | p99 | waiting | inference | decoding alone | conversion alone | inference alone | "
        "ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in load("camera")["measured"]["ages"].items():
        columns = ("age", "p90", "p99", "waiting", "inferring", "decoding", "conversion", "inference")
        times = " | ".join(f"{r[column]:.1f}" for column in columns)
        lines.append(f"| {name} | {times} | {r['ratio']:.2f} ({min(r['ratios']):.2f} to {max(r['ratios']):.2f}) |")
    return "\n".join(lines)


def overload() -> str:
    """What else was measured of a camera."""
    measured, long, crowd = (load(name)["measured"] for name in ("camera", "overload", "clients"))
    virtual = load("v4l2")["measured"]
    steady, eager = (crowd[f"{fps} a second"] for fps in (30, 240))
    *_, path = measured["steps"]
    shipped = next(s for s in measured["steps"] if path["step"].startswith(f"{s['step']},"))
    minutes = long["minutes"]
    waited = [m["p99_waited_ms"] for m in minutes]
    memory = [m["resident_mb"] for m in minutes]
    return (
        f"The whole path, photos as 640×480 frames, is right for {path['top1']:.2f}% of the 1300 photos, the same file on the "
        f"photos themselves for {shipped['top1']:.2f}%. A camera of 60 frames a second with a reader that takes 100 ms for each, "
        f"for {len(minutes)} minutes: a frame waited at most {max(waited):.1f} ms at p99 of any minute (a frame's time is 16.7), "
        f"memory went from {memory[0]} to {memory[-1]} MB. Two cameras of 30 and 60 frames a second got "
        f"{' and '.join(str(n) for n in measured['sharing'].values())} labels. With 100 clients of the page, of which "
        f"{steady['visits_a_second']:.0f} a second leave and come, on the same two cores, a camera of 30 frames a second kept "
        f"{100 * steady['ratio']:.0f}% of its labels a second, with {steady['age_ratio']:.2f} times their latency; "
        f"one that the model cannot follow kept {100 * eager['ratio']:.0f}% "
        f"({100 * eager['ratio_p10']:.0f} to {100 * eager['ratio_p90']:.0f}). "
        f"A V4L2 camera, Linux' virtual one in an emulated machine (`run.py v4l2`), gave {virtual['640×360']['frames']} frames in "
        f"25 seconds, and labels again {virtual['unplugged for 20 s']['outages'][0]:.0f} seconds after it was unplugged for 20."
    )


def jetson() -> str:
    """What would go to a Jetson, as judged here."""
    fit = load("v2-b0-jetson")["measured"]
    steps = {s["step"].split(" (")[0]: s for s in fit["steps"]}
    built = {r["precision"]: r["outcome"] for r in fit["rehearsals"]}
    lines = ["| form | top-1 % | drop, 95% interval | agreement % | TensorRT-RTX |", "|---|---|---|---|---|"]
    lines += [f"| {f['precision']} | {judged(steps[f['precision']])} | {built.get(f['precision'], '')} |" for f in fit["forms"]]
    return "\n".join(lines)


def beside() -> list[str]:
    """The section on other tools, where they were measured."""
    if not measured_peers():
        return []
    return [
        f"**Beside other tools** (`python benchmarks/run.py {' '.join(measured_peers())}`): each tool in an environment of its own "
        "gets the same float graph and 300 calibration photos; what it writes is judged on the 650 test photos by edgeeff and by "
        "`benchmarks/peers/judge.py`, which shares no code with it, linted for TensorRT 10.3, and built by TensorRT-RTX without a "
        f"GPU. {tools()} Seconds and peak memory are of the tool alone, on two cores that other programs use too:",
        peers(),
        "ModelOpt puts its pairs where edgeeff does, and also on the input of the stem and through squeeze-and-excitation (what is "
        "pooled, both convolutions, the gate and what it multiplies); it leaves the classifier in float. Its ranges by entropy "
        "come near edgeeff's in half the processor time, those by maxima do not. None of its methods is more accurate than "
        "edgeeff's, so that none was taken over.",
    ]


OURS = "edgeeff fit --activation auto"
RECIPES = {
    "NNCF": "https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html",
    "ONNX Runtime": "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    "Olive": "https://microsoft.github.io/Olive/features/passes/quant_onnx.html",
    "ExecuTorch": "https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html",
    "LiteRT": "https://github.com/google-ai-edge/ai-edge-quantizer",
    "Neural Compressor": "https://intel.github.io/neural-compressor/3.0/docs/source/3x/PT_StaticQuant.html",
}
"""Where the documentation of a tool has the recipe that its adapter follows."""


MACHINES = {"": "peers.svg", "xeon/": "peers-xeon.svg"}
"""Where the results of each CPU lie, and the picture of them."""


def on_cpu(folder: str) -> list[dict[str, Any]]:
    """The results of other tools on a CPU that are there."""
    names = [f"{folder}peers-cpu-{name}" for name in CPU_TASKS]
    return [load(name) for name in names if measured(name)]


def on_cpus() -> dict[str, list[dict[str, Any]]]:
    """The results of other tools on each CPU where they were measured."""
    return {folder: found for folder in MACHINES if (found := on_cpu(folder))}


def beside_on_cpus() -> list[str]:
    """What other tools ship for the CPUs on which that was measured."""
    if not (machines := on_cpus()):
        return []
    results = [result for found in machines.values() for result in found]
    first, rows = results[0]["measured"], [row for result in results for row in result["measured"]["rows"]]
    differ = max(row.get("judges_differ", 0) for row in rows)
    return [
        "**Beside other tools, on a CPU** (`make bench-peers`): what each ships from the same float network "
        "and 300 calibration photos, in its own runtime on all cores; top-1 on test photos that no choice has seen (650 of "
        "ImageNet, half of the validation photos of the others), latency in blocks in turn. B0 is fine-tuned with Swish for all "
        "sets but ImageNet; digits are scikit-learn's, mnist are 5000 of MNIST, both at 64 px. Each tool follows its documentation "
        f"({', '.join(f'[{name}]({url})' for name, url in RECIPES.items())}). "
        f"{', '.join(tool.replace('==', ' ') for tool in first['tools'])}. A second judge that "
        f"shares no code with edgeeff differs on at most {differ} photo{'s' * (differ != 1)}. How edgeeff's files stand "
        f"to the fastest one of another tool that loses at most {first['max_drop']} points, then every file; seconds and peak "
        "memory are of the tool alone, on cores that other programs may have used too.",
        *(part for folder, found in machines.items() for part in on_one_cpu(folder, found)),
        *foretold(results),
    ]


def on_one_cpu(folder: str, found: list[dict[str, Any]]) -> list[str]:
    """What was measured on one CPU."""
    chip = found[0]["device"]
    dates = " to ".join(dict.fromkeys(choose(result["date"] for result in found) for choose in (min, max)))
    names = " ".join(f"peers-cpu-{name}" for name in CPU_TASKS if measured(f"{folder}peers-cpu-{name}"))
    command = f"python benchmarks/run.py --results benchmarks/results/{folder} {names}"
    return [
        f"On {chip['cores']} cores of an {chip['cpu']} ({', '.join(chip['flags'])}), {dates} (`{command}`):",
        fastest_rivals(found),
        *interfered(found),
        f"![Latency of every file in units of {OURS}]({MACHINES[folder]})",
        every_file(found),
    ]


def interfered(found: list[dict[str, Any]]) -> list[str]:
    """Of which tasks the files were timed while the processes of other files could still run."""
    if not (tasks := [result["measured"]["task"] for result in found if not result["measured"].get("alone")]):
        return []
    return [
        f"While a file is timed, the processes of all others are stopped, but that was not so yet for {'; '.join(tasks)}. "
        "A file that came after one in ONNX Runtime was slowed, LiteRT's more than OpenVINO's (probably by threads that spin after "
        "an inference), so do not rely on these ratios to other runtimes."
    ]


def foretold(found: list[dict[str, Any]]) -> list[str]:
    """How near the drop on choosing photos, and the one that is expected by them, come to the drop on test photos."""
    lines = []
    for result in found:
        made = [row for row in result["measured"]["rows"] if "seconds" in row and "foretold" in row]  # by a tool
        pairs = [(row["foretold"], drop) for row in made if (drop := row["step"]["drop"]) <= TOLD]
        if pairs:
            of = [math.sqrt(fmean((told[key] - drop) ** 2 for told, drop in pairs)) for key in ("drop", "expected")]
            chip = result["device"]["cpu"]
            lines.append(f"| {result['measured']['task']} | {chip} | {len(pairs)} | {of[0]:.2f} | {of[1]:.2f} |")
    if not lines:
        return []
    head = "| task | CPU | files | by the drop on choosing photos | by the expected drop |\n|---|---|---|---|---|"
    return [
        "How well choosing photos foretell the drop on test photos, of the files of all tools that lose at most "
        f"{TOLD:g} points there: the root mean square of what they are off by, in points. The expected drop, to which smaller "
        "networks are held too, takes a changed answer to be right as often as the float network's probabilities say:",
        "\n".join([head, *lines]),
    ]


def fastest_rivals(found: list[dict[str, Any]]) -> str:
    """A line for each task: by how much edgeeff's files are faster than the fastest of another tool within the gate."""
    lines = [
        "| task | fastest other tool | drop | p50 ms | edgeeff | drop | p50 ms | times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in found:
        rows = {row["name"]: row for row in result["measured"]["rows"] if "refused" not in row}
        ours, others = ([row for name, row in rows.items() if name.startswith("edgeeff") is own] for own in (True, False))
        rival = min((row for row in others if row["step"]["passed"]), key=lambda row: row["p50"], default=None)
        for own in ours:
            line = [result["measured"]["task"]]
            for row in (rival, own):
                line += [row["name"], lost(row["step"]), f"{row['p50']:.2f}"] if row else ["none loses so little", "", ""]
            lines.append(f"| {' | '.join(line)} | {faster(rival, own) if rival else ''} |")
    return "\n".join(lines)


def faster(slow: dict[str, Any], fast: dict[str, Any]) -> str:
    """How many times as fast: in the same rounds, where these are told."""
    if not ("rounds" in slow and "rounds" in fast):
        return f"{slow['p50'] / fast['p50']:.2f}×"
    each = [Latency(row["p50"], row["p90"], 0.0, (0.0, 0.0), tuple(row["rounds"])) for row in (slow, fast)]
    return str(ratio(*each))


def lost(step: dict[str, Any]) -> str:
    """What a file loses on test photos: edgeeff's were chosen on others, where they lost no more than allowed."""
    return f"{step['drop']:+.2f}{'' if step['passed'] else ', more than allowed'}"


def every_file(found: list[dict[str, Any]]) -> str:
    """A line for each file of each task; of a tool that wrote none, its last words."""
    lines = [
        "| task | tool | top-1 % | drop, 95% interval | agreement % | px | parts out | p50 ms | ÷ edgeeff's | MB | s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in found:
        m = result["measured"]
        for row in m["rows"]:
            begin = f"| {m['task']} | {row['name']} "
            if "refused" in row:
                lines.append(f"{begin}| refuses: {row['refused']} {'| ' * 9}|")
                continue
            (times, (low, high)) = (row["behind"][key] for key in ("times", "ci"))
            out = len(row.get("left_out", ())) or ""
            cost = " | ".join(f"{row[key]:.0f}" if key in row else "" for key in ("seconds", "peak_mb"))
            lines.append(
                f"{begin}| {judged(row['step'])} | {row['px']} | {out} | {row['p50']:.2f} | {times:.2f}× ({low:.2f} to {high:.2f}) "
                f"| {row['megabytes']:.1f} | {cost} |"
            )
    return "\n".join(lines)


def peers() -> str:
    """The files of other tools; of one that wrote none, its last words."""
    lines = [
        "| network | tool | top-1 % | drop, 95% interval | agreement % | second judge | lint errors | TensorRT-RTX "
        "| s | CPU s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in compared():
        begin = f"| {row['network']} | {row['name']} "
        if "refused" in row:
            lines.append(f"{begin}| refuses: {row['refused']} {'| ' * 8}|")
            continue
        errors = ", ".join(f"{count} {rule}" for rule, count in sorted(row["lint"]["errors"].items()))
        built = row["tensorrt_rtx"].partition(":")[0]
        cost = " | ".join(f"{row[name]:.0f}" if name in row else "" for name in ("seconds", "cpu_seconds", "peak_mb"))
        lines.append(f"{begin}| {judged(row['step'])} | {row['independent_top1']:.2f} | {errors} | {built} | {cost} |")
    return "\n".join(lines)


def compared() -> list[dict[str, Any]]:
    """Every attempt at every network that was measured."""
    found = [load(name)["measured"] for name in measured_peers()]
    return [{"network": each["network"], **row} for each in found for row in each["rows"]]


def measured_peers() -> list[str]:
    return [name for name in ("peers-v2-b0", "peers-lite0") if measured(name)]


def tools() -> str:
    """Which other tools, and how far the judges agree."""
    agree = min(row["judges_agree"] for row in compared() if "judges_agree" in row)
    names = " and ".join(each.replace("==", " ") for each in load("peers-v2-b0")["measured"]["tools"])
    return f"The tools are {names}; the judges give the same label to at least {agree:.1f}% of the photos."


def auto() -> str:
    """What `--activation auto` weighed."""
    fit = load("v2-b0-auto")["measured"]
    return fit["verdict"]


def evaluation() -> str:
    measured = load("throughput")["measured"]

    def span(values: list[float]) -> str:
        low, middle, high = sorted(values)
        return f"{100 * middle:.0f}% ({100 * low:.0f} to {100 * high:.0f})"

    (few, small), (many, large) = measured["peak_mb_by_images"].items()
    return (
        f"{span(measured['ratios'])} of its images a second, {span(measured['ratios_with_decoding'])} with decoding counted. "
        f"Peak memory {small} MB for {few} photos, {large} MB for {many}."
    )


def updated(text: str, numbers: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{numbers}\n\n{END}{after}"


def reliability() -> str:
    """The table of docs/reliability.md."""
    inputs, clients = (load(name) for name in ("hostile", "hostile-clients"))
    tried, failing = (sum(inputs["measured"][name].values()) for name in ("tried", "failing"))
    by_file = ", ".join(f"{name.removeprefix('test_')} {n}" for name, n in sorted(inputs["measured"]["tried"].items()))
    rate = clients["measured"]["30 a second"]
    rows = [
        ("hostile inputs", "run.py hostile", f"{tried:,} tried, {tried - failing:,} clean, {failing} failing ({by_file})"),
        (
            "a fit that is killed at one of its steps, or whose disk is full or fails from there on, or that is killed at any "
            "moment; then the same command again",
            "faults.py",
            killed(),
        ),
        (
            "a verb with `--on` that is killed at a step, here or there; then the same command again",
            "remote_faults.py",
            killed_far(),
        ),
        (
            "500 silent and 50 malformed connections at the page of a camera of 30 frames a second",
            "run.py hostile-clients",
            f"{100 * rate['ratio']:.0f}% of the labels (turns from {100 * min(rate['ratios']):.0f} to "
            f"{100 * max(rate['ratios']):.0f}%)",
        ),
        ("two cameras, page, broker, file and collected frames at once, under limits", "run.py together", everything()),
        *([("a camera that follows a folder of bundles", "run.py follow", followed())] if measured("follow") else []),
        *([("that fetches them from another host (`--pull`)", "run.py fetch", fetched())] if measured("fetch") else []),
        (
            "checking a bundle's signature",
            "run.py signatures",
            f"{load('signatures')['measured']['added']:.0f} ms of processor time more, the import of `cryptography` included",
        ),
    ]
    lines = [f"| {what} | `python benchmarks/{command}` | {result} |" for what, command, result in rows]
    return "\n".join(["| what | command | result |", "|---|---|---|", *lines])


def killed() -> str:
    """How many of a fit's points were tried, by kind, and what came of them."""
    found = load("faults")
    steps, kinds = len(found["steps"]), Counter(each["fault"] for each in found["tried"])
    of = {"killed at a moment": 100}
    tried = ", ".join(f"{kind} at {n} of {of.get(kind, steps)}" for kind, n in kinds.items())
    return (
        f"{found['points']} points tried ({tried.replace('at a moment at', 'at a moment:')}): {found['same']} times the same "
        f"bundle, {found['leftovers']} times something left over"
    )


def killed_far() -> str:
    """How many points of each verb were tried, and what came of them."""
    found = load("remote-faults")
    struck = [each for each in found["tried"] if each["struck"]]
    kinds = Counter((each["verb"], each["side"].split(",")[0]) for each in struck)
    steps = {(verb, side): len(names) for verb, sides in found["steps"].items() for side, names in sides.items()}
    tried = ", ".join(f"{verb} {n} {side}, of {steps[verb, side]} steps" for (verb, side), n in sorted(kinds.items()))
    same, left = sum(each["same"] for each in struck), sum(bool(each["leftovers"]) for each in struck)
    return f"{len(struck)} points tried at random ({tried}): {same} times the same result, {left} times something left over"


def everything() -> str:
    """What a camera with everything at once took."""
    m = load("together")["measured"]
    resident, own, descriptors, threads = (m[what] for what in ("resident_mb", "own_mb", "descriptors", "threads"))
    slowest, fastest = (f([rate for each in m["rates"].values() for rate in each]) for f in (min, max))
    return (
        f"{m['seconds'] / 60:.0f} minutes under `ulimit -v {m['limits']['address_space'] >> 10} -n {m['limits']['descriptors']}`, "
        f"in the second half: {resident['least']:.0f} to {resident['most']:.0f} MB resident, of which {own['least']:.1f} to "
        f"{own['most']:.1f} MB are no files' pages, {own['slope']:+.2f} MB a minute ({own['low']:.2f} to {own['high']:.2f}); "
        f"{descriptors['least']:.0f} to {descriptors['most']:.0f} descriptors, "
        f"{descriptors['slope']:+.2f} a minute ({descriptors['low']:.2f} to {descriptors['high']:.2f}); "
        f"{threads['least']:.0f} to {threads['most']:.0f} threads; {slowest:.0f} to {fastest:.0f} labels a second of each camera "
        f"of 30 frames a second, on two cores that others used too (load average {m['load']:g})"
    )


def measured(name: str) -> bool:
    """Whether there is a result of that name."""
    return (HERE / "results" / f"{name}.json").exists()


def followed() -> str:
    """What a camera did while bundles came, failed, and were taken back, and while it was killed."""
    m = load("follow")["measured"]
    kills = m["kills"]
    return (
        f"{m['swaps']} newer bundles under 30 frames a second, each tried and watched for {m['frames']} frames: {in_turn(m)}; a "
        f"bundle whose golden photos fail is refused after "
        f"{m['refused_s']['median']:.1f} s (at most {m['refused_s']['most']:.1f}), `rollback` has effect "
        f"after {m['returned_s']['median']:.1f} s (at most "
        f"{m['returned_s']['most']:.1f}); killed {kills['kills']} times: a whole bundle runs after {kills['whole']}, labels come "
        f"again after {kills['labelled_again']}"
    )


def fetched() -> str:
    """What a camera did while bundles came from another host."""
    m = load("fetch")["measured"]
    return f"{m['swaps']} newer bundles as above, which it looks for every {m['period']:g} seconds: {in_turn(m)}"


def in_turn(m: dict[str, Any]) -> str:
    """What a camera did while bundles came, each of which was good."""
    missed = {int(frames): n for frames, n in m["without_label"].items()}
    own, descriptors, most = m["own_mb"], m["descriptors"], max(missed)
    return (
        f"at a swap {most} frame{'s' * (most != 1)} without a label at most (none at {missed.get(0, 0)} of "
        f"{sum(missed.values())}), {100 * m['labelled']:.1f}% of all frames labelled; {own['least']:.0f} to {own['most']:.0f} MB "
        f"of its own, {own['slope']:+.2f} a minute ({own['low']:.2f} to {own['high']:.2f}), {descriptors['least']:.0f} to "
        f"{descriptors['most']:.0f} descriptors"
    )


def drift() -> str:
    """The table of docs/camera.md: how soon a change is said, and how often one that is none; nothing where it was not measured."""
    if not measured("drift"):
        return "(not measured yet)"
    m = load("drift")["measured"]
    changes = list(m["cameras"][0]["delays"])
    lines = [
        f"| photos, seconds a scene | false alarms, 24-hour days | {' | '.join(changes)} |",
        "|---|---|" + "---|" * len(changes),
    ]
    for camera in m["cameras"]:
        days, cells = camera["alarms_by_day"], []
        for delays in camera["delays"].values():
            within = sum(d is not None and d <= m["allowed"] for d in delays)
            middle = sorted(math.inf if d is None else d for d in delays)[len(delays) // 2]
            cells.append(f"{100 * within / len(delays):.0f}%" + (f", {middle}" if middle < math.inf else ""))
        lines.append(f"| {camera['photos']}, {camera['scene_seconds']:g} | {sum(days)} in {len(days)} | {' | '.join(cells)} |")
    cost = ", ".join(f"{name} {ms:.2f}" for name, ms in m["cost_ms"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Of each change: how many of {len(delays)} cameras say it within {m['allowed']} frames "
            f"({m['allowed'] / m['fps']:.0f} s), and the median of the frames until then. Milliseconds for a frame looked at: "
            f"{cost}.",
        ]
    )


def rival_file() -> str:
    """What `edgeeff pick --rivals` reads."""
    return json.dumps(frontier.published(load("frontier")), indent=1, ensure_ascii=False) + "\n"


def pictures() -> dict[Path, str]:
    """The pictures of docs/benchmarks.md."""
    networks = load("frontier")["measured"]["networks"]
    precisions = next(n["forms"] for n in networks if n["forms"])
    drawn = {BENCHMARKS.parent / f"frontier-{p}.svg": frontier.picture(networks, p) for p in precisions}
    for folder, found in on_cpus().items():
        drawn[BENCHMARKS.parent / MACHINES[folder]] = picture.picture([result["measured"] for result in found], OURS)
    return drawn


PAGES = {README: summary, BENCHMARKS: render, RELIABILITY: reliability, CAMERA: drift}
"""What is written into each file."""


if __name__ == "__main__":
    for path, numbers in PAGES.items():
        path.write_text(updated(path.read_text(), numbers()))
    for path, drawn in {RIVALS: rival_file(), **pictures()}.items():
        path.write_text(drawn)
