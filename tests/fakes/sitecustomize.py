"""Where latencies are worth no time: of a stand-in for TensorRT, and of hosts that are one machine and disturb each other."""

import sys

if {"compile", "measure"} & set(sys.orig_argv):
    import edgeeff.compilation
    import edgeeff.measurement.latency

    edgeeff.compilation.ROUNDS = 2
    edgeeff.measurement.latency._width = lambda blocks: 0.0
    if "measure" in sys.orig_argv:
        edgeeff.measurement.latency.disturbed = lambda before, after: []
