"""The verdict in words."""

from dataclasses import replace
from pathlib import Path

from edgeeff.data.preprocess import Preprocess
from edgeeff.measurement.accuracy import StepReport
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.latency import Latency
from edgeeff.precision import Precision
from edgeeff.quantization.forms import Form
from edgeeff.selection.outcome import Sibling, about_int8

REPORT = StepReport("bf16", 84.0, 96.0, 0.1, (-0.5, 0.7), 98.0, 1300, True, False, None, 1.0)
BF16 = Form(
    precision=Precision.BF16,
    runtime="openvino",
    file=Path("model.xml"),
    report=REPORT,
    onnx=Path("model.onnx"),
    activation="hardswish",
    preprocess=Preprocess.standard(224, (0, 0, 0), (1, 1, 1)),
)
INT8 = replace(BF16, precision=Precision.INT8)


def sibling(form: Form, p50: float) -> Sibling:
    return Sibling(form, Metrics(Latency(p50, p50, p50, (p50, p50), (p50,)), {}))


def test_where_a_float_form_ships_the_fastest_int8_form_that_passes_is_named() -> None:
    smaller = replace(INT8, report=replace(REPORT, passed=False, drop=2.0), left_out=("blocks.1.1",))
    siblings = [sibling(BF16, 5.07), sibling(INT8, 5.53), sibling(INT8, 6.82), sibling(smaller, 4.14)]
    assert about_int8(BF16, siblings) == " INT8 does not pay here: p50 5.53 ms."
    assert about_int8(BF16, [siblings[0], siblings[3]]).startswith(" INT8 fails the gate after every strategy (")
    assert about_int8(BF16, siblings[:1]) == ""
