"""What can be typed on the command line. Options that fill a field of Job or Budget bear its name."""

from __future__ import annotations

import argparse
import math
import re

EXIT_CODES = """exit codes: 0 done · 2 bad input · 3 budget not met · 4 accuracy gate failed · 5 tool missing
            6 hub or device unreachable · 7 engine not built · 8 measurement disturbed
            130 interrupted (the same command goes on from there)"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="edgeeff",
        description="The largest EfficientNet within a device's budget, in INT8, proven on your photos and measured on the device.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(required=True, metavar="VERB", dest="verb")

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(name, help=help, description=help)
        p.add_argument("--json", action="store_true", help="one JSON object on standard output")
        p.set_defaults(indent=1)
        return p

    p = verb("fit", "weights or labelled photos → a verified bundle within the budget")
    _budget_options(p)
    p.add_argument(
        "--variant",
        nargs="+",
        default=[],
        dest="variants",
        metavar="NAME",
        help="the variant, or those to choose from (default: all)",
    )
    p.add_argument("--weights", metavar="FILE", help="checkpoint: .safetensors, .pth, or hf-hub:owner/name")
    p.add_argument("--train", metavar="DIR", help="labelled photos to train on: DIR/CLASS/*.jpg or labels.txt")
    p.add_argument("--val", required=True, metavar="DIR", help="photos that judge every step; no step learns from them")
    p.add_argument("--calib", metavar="DIR", help="photos that set the INT8 ranges (default: the training photos)")
    p.add_argument("--out", required=True, metavar="DIR", help="the bundle to write")
    p.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="top-1 points a step may lose (default 0.5)")
    p.add_argument(
        "--activation",
        choices=["keep", "hardswish", "relu6", "relu", "auto"],
        help="swap Swish and recover on --calib or --train (default: where INT8 fails without; auto: also where it is faster)",
    )
    p.add_argument(
        "--time-budget", type=float, default=30.0, metavar="MIN", help="minutes for finding INT8 that passes the gate (default 30)"
    )
    p.add_argument("--accept", action="store_true", help="ship the best within the budget even if it fails the accuracy gate")
    p.add_argument(
        "--min-agreement", type=float, default=97.0, metavar="PERCENT", help="the gate for unlabelled --val (default 97)"
    )
    p.add_argument("--labels", metavar="FILE", help="class names, one a line, for weights that do not name theirs")
    p.add_argument(
        "--padding", choices=["symmetric", "same"], help="of the weights, where the file does not say (default: the variant's)"
    )
    p.add_argument(
        "--calibration", default="default", metavar="RECIPE", help="how photos set the ranges: a name from calib/, or a YAML file"
    )
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE", help="unreadable photos tolerated (default 0.01)")
    p.add_argument("--epochs", type=int, help="of training (default: 10 from weights, 40 from scratch)")
    p.add_argument("--lr", type=float, help="peak learning rate (default: 0.001 from weights, 0.003 from scratch)")
    p.add_argument("--no-flip", action="store_false", dest="flip", help="train without mirroring: digits, text, arrows")
    p.add_argument("--seed", type=int, default=0)

    p = verb("pick", "the largest variant within the budget, timed here with random weights")
    _budget_options(p)
    p.add_argument("--variant", nargs="+", default=[], dest="variants", metavar="NAME", help="candidates (default: all)")
    p.add_argument("--classes", type=_classes, default=1000)
    p.add_argument("--activation", choices=["keep", "auto", "hardswish", "relu6", "relu"], default="keep", help="as fit would swap")
    p.add_argument("--all", action="store_true", help="measure every candidate instead of searching, and show the frontier")

    p = verb("profile", "measure many variants here, so that others can be predicted where this device is not at hand")
    p.add_argument("--target", required=True, help="a name from `edgeeff targets`; the model is written beside its file")
    p.add_argument("--variant", nargs="+", default=[], dest="variants", metavar="NAME", help="what to measure (default: all)")
    p.add_argument("--resolution", type=int, nargs="+", default=[], metavar="PX", help="input sizes (default: each variant's)")
    _on_option(p, "measure there")

    p = verb("variants", "the family: parameters, multiply-adds and activations of each at its resolution")
    p.add_argument("variant", nargs="*", help="names, or phiX for a compound coefficient (default: all)")
    p.add_argument("--resolution", type=int)
    p.add_argument("--classes", type=_classes, default=1000)

    verb("targets", "the devices edgeeff knows")

    p = verb("eval", "accuracy of a bundle's compiled file on labelled photos")
    p.add_argument("bundle")
    p.add_argument("--val", required=True, metavar="DIR")
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE")
    _on_option(p)

    p = verb("bench", "latency of a bundle's compiled file on this machine")
    p.add_argument("bundle")
    p.add_argument("--rounds", type=int, default=8)
    _on_option(p)

    p = verb("compile", "on the device: a bundle's graphs become engines; the fastest that passes ships")
    p.add_argument("bundle")
    p.add_argument("--val", metavar="DIR", help="labelled photos to judge the engines on (default: the bundle's golden ones)")
    p.add_argument("--dla", type=int, metavar="CORE", help="build for a DLA core; refused where it runs under 90%% of the layers")
    p.add_argument("--max-corrupt", type=float, default=0.01, metavar="SHARE", help="unreadable photos tolerated (default 0.01)")
    _on_option(p)

    p = verb("camera", "labels on live frames: a line at each change, with --json at each frame")
    p.add_argument("bundle")
    p.add_argument(
        "--source",
        dest="sources",
        nargs="+",
        required=True,
        metavar="SRC",
        help="0, /dev/video0, csi://0, rtsp://…, http://…, a file, a folder of photos, - (standard input), a GStreamer pipeline",
    )
    p.add_argument(
        "--roi", type=_box, dest="region", metavar="L,T,W,H", help="the part to look at: left,top,width,height in pixels"
    )
    p.add_argument("--size", type=_size, metavar="WxH", help="ask a V4L2 or CSI camera for frames of WIDTHxHEIGHT pixels")
    p.add_argument("--every", type=_count, default=1, metavar="N", help="look at each Nth frame only")
    p.add_argument("--nv12", action="store_true", help="take raw NV12 frames from the camera; OpenVINO converts them in its graph")
    p.add_argument("--top", type=_count, default=3, metavar="K", help="classes to name for each frame (default 3)")
    p.add_argument("--smooth", type=float, default=0.5, metavar="S", help="seconds over which the label is smoothed (default 0.5)")
    p.add_argument("--threshold", type=float, default=0.5, metavar="P", help="probability that a label needs (default 0.5)")
    p.add_argument(
        "--budget-ms", type=_positive, metavar="MS", help="what 90%% of the labels have to be younger than; exit code 3 if not"
    )
    p.add_argument(
        "--seconds", type=_positive, metavar="S", help="end after so long (default: at Ctrl-C, SIGTERM or the source's end)"
    )
    p.add_argument("--output", metavar="FILE", help="append a JSON line for each frame")
    p.add_argument("--mqtt", metavar="[USER:PASSWORD@]HOST[:PORT]/TOPIC", help="publish a JSON message for each frame")
    p.add_argument(
        "--web", metavar="[HOST:]PORT", help="show picture, label and ages in a browser; other hosts need the token printed"
    )
    p.add_argument("--collect", metavar="DIR", help="keep frames that the model is unsure of, one a second at most")
    p.add_argument("--uncertain", type=float, default=0.6, metavar="P", help="what the surest class stays under then (default 0.6)")
    p.add_argument("--collect-mb", type=_positive, default=500.0, metavar="MB", help="what DIR may hold (default 500)")
    _on_option(p, "with the cameras there")
    p.set_defaults(indent=None)  # its summary is the last of many lines

    p = verb("lint", "will TensorRT build this ONNX graph, and run it in INT8?")
    p.add_argument("model", metavar="MODEL.onnx")
    p.add_argument("--tensorrt", type=_version, default=(10, 3), metavar="VERSION", help="the version to build with (default 10.3)")

    p = verb("inspect", "which layers of a bundle lose most in INT8: float against INT8 on the same photos")
    p.add_argument("bundle")
    p.add_argument("--images", metavar="DIR", help="photos to compare on (default: the bundle's golden ones)")
    p.add_argument("--plot", metavar="FILE", help="also draw the errors as SVG")
    p.add_argument("--top", type=int, default=15, metavar="N", help="layers to list (default 15)")
    p.add_argument("--engine", action="store_true", help="list the layers of a TensorRT engine instead, as it was built")

    p = verb("verify", "re-hash a bundle's files and replay its golden images")
    p.add_argument("bundle")

    p = verb("measure", "what a fit elsewhere asks of this machine, by --on: always JSON")
    p.add_argument("backend")
    p.add_argument("request", nargs="?", help="the folder that came with the question (default: only what this machine is)")
    p.set_defaults(json=True)

    verb("doctor", "what this machine has and what is missing")
    return top


def _classes(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 2 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 or more")
    return int(text)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number


def _box(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+){3}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected left,top,width,height")
    return tuple(map(int, text.split(",")))


def _size(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, like 1280x720")
    return tuple(map(int, text.split("x")))


def _version(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"1[01](\.\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a version from 10.3 to 11, like 10.3")
    return tuple(int(n) for n in text.split("."))


def _budget_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--target", required=True, help="a name from `edgeeff targets`, or a YAML file")
    p.add_argument(
        "--latency",
        type=float,
        metavar="MS",
        dest="latency_ms",
        help="milliseconds for one photo (default: the target's, when no budget is given)",
    )
    p.add_argument(
        "--percentile", type=int, choices=[50, 90, 99], default=50, help="the percentile --latency is held to (default 50)"
    )
    p.add_argument("--fps", type=float, help="frames a second, at least, many in flight")
    p.add_argument("--gflops", type=float, help="billions of multiply-adds")
    p.add_argument("--mparams", type=float, help="millions of parameters")
    p.add_argument("--size-mb", type=float, help="megabytes of the compiled file")
    p.add_argument("--memory-mb", type=float, help="megabytes that a process needs at most to load and run it")
    p.add_argument("--energy-mj", type=float, help="millijoules for one photo, where the device has a power sensor")
    p.add_argument("--resolution", type=int, nargs="+", default=[], metavar="PX", help="input sizes (default: each variant's)")
    _on_option(p, "measure there; of several, what fits all")


def _on_option(p: argparse.ArgumentParser, what: str = "do it there") -> None:
    p.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="USER@HOST",
        help=f"{what}, over ssh, with nothing installed but python3 and rsync",
    )
