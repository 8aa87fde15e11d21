"""Other machines over ssh.

    from edgeeff import remote
    answers = remote.evaluate(EvaluateJob("my-model", val="photos/val"), ["user@jetson"])
    with remote.machine(["pi@one", "pi@two"], "openvino") as machine:
        edgeeff.fit(job, machine=machine)  # what fits the slowest of them

`evaluate`, `benchmark`, `requalify`, `compile_bundle` and `watch` return an answer for each host; `machine` is where `fit` and
`pick` measure.
"""

from .fleet import HostAnswer, machine
from .verbs import Watch, benchmark, compile_bundle, evaluate, requalify, watch

__all__ = ["HostAnswer", "Watch", "benchmark", "compile_bundle", "evaluate", "machine", "requalify", "watch"]
