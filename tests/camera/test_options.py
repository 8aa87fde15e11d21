"""What a camera is asked for: the same on the command line and in Python."""

import argparse
from dataclasses import fields

import pytest

from edgeeff import BadInput
from edgeeff.camera import CameraOptions
from edgeeff.camera.options import OutputOptions
from edgeeff.cli.options import parser

TEXTS = {"--roi": "1,2,40,50", "--size": "64x48", "--every": "3", "--top": "2", "--smooth": "0.1", "--threshold": "0.9"}
TEXTS |= {"--seconds": "1.5", "--collect-mb": "7", "--budget-ms": "20", "--uncertain": "0.3"}


@pytest.mark.parametrize("kind", [CameraOptions, OutputOptions])
def test_each_field_says_what_the_command_line_does(kind) -> None:
    defaults, names = kind(), {f.name: f for f in fields(kind)}
    said = parser().parse_args(["camera", "bundle", "--source", "0"])
    assert {name: getattr(said, name) for name in names} == {name: getattr(defaults, name) for name in names}
    for field in names.values():
        option = field.metadata["option"]
        assert option.help
        flag = option.flag or f"--{field.name.replace('_', '-')}"
        if text := TEXTS.get(flag):
            value = getattr(parser().parse_args(["camera", "bundle", "--source", "0", flag, text]), field.name)
            assert (option.parse or type(field.default))(text) == value


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"smooth": -1}, {"smooth": float("inf")}, {"threshold": 0}, {"threshold": 1.5}, {"every": 0}, {"top": 0}):
        with pytest.raises(BadInput, match="expected"):
            CameraOptions(**wrong)
    for field, text in (("region", "1,2,3"), ("size", "64"), ("every", "0"), ("seconds", "inf"), ("seconds", "-1")):
        parse = CameraOptions.__dataclass_fields__[field].metadata["option"].parse
        with pytest.raises((argparse.ArgumentTypeError, ValueError), match="expected"):
            parse(text)
