"""The precisions in which a file can run: what its weights are, and what the rest of it computes in."""

from __future__ import annotations

from enum import Enum
from typing import Literal

Number = Literal["float32", "bf16", "fp16", "int8"]


class Precision(Enum):
    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT8_BF16 = "int8-bf16"
    INT8_FP16 = "int8-fp16"
    INT8_MIXED = "int8-mixed"

    def __str__(self) -> str:
        return self.value

    @property
    def weights(self) -> Number:
        """The type of the quantized layers' weights where that is int8; otherwise of all weights."""
        return _PARTS[self][0]

    @property
    def rest(self) -> Number:
        """What all other layers compute in."""
        return _PARTS[self][1]

    @property
    def quantized(self) -> bool:
        return self.weights == "int8"

    @property
    def depthwise_in_float(self) -> bool:
        """Whether depthwise convolutions are left out of INT8: on GPUs they gain little from it, or lose."""
        return self is Precision.INT8_MIXED


_PARTS: dict[Precision, tuple[Number, Number]] = {
    Precision.FLOAT32: ("float32", "float32"),
    Precision.BF16: ("bf16", "bf16"),
    Precision.FP16: ("fp16", "fp16"),
    Precision.INT8: ("int8", "float32"),
    Precision.INT8_BF16: ("int8", "bf16"),
    Precision.INT8_FP16: ("int8", "fp16"),
    Precision.INT8_MIXED: ("int8", "fp16"),
}
