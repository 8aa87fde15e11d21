from dataclasses import replace

import numpy as np
import pytest

from edgeeff import BadInput
from edgeeff.network.variants import VARIANTS, variant
from edgeeff.selection.latency_model import PRIOR, UNITS, LatencyModel, work

FAMILY = list(VARIANTS.values())


@pytest.mark.parametrize("v", FAMILY, ids=lambda v: v.name)
def test_the_blocks_work_adds_up_to_the_networks_multiply_adds(v) -> None:
    pointwise, depthwise, dense = work(v)[:3]
    gates = sum(2 * b.expanded * b.squeezed for b in v.blocks())
    classifier = v.head * 1000
    assert 1e9 * (pointwise + depthwise + dense) + gates + classifier == pytest.approx(v.cost().flops)


def test_the_work_of_a_network_is_what_stored_models_were_fitted_to() -> None:
    # Multiply-adds, activations and weights of B0 at 224 px, in the order of UNITS; counted otherwise, stored costs would be wrong.
    assert work(variant("b0")) == pytest.approx([0.338537472, 0.034532064, 0.010838016, 6.737696, 2.306528, 3.773312], rel=1e-12)


def test_costs_are_found_again_from_latencies_they_made() -> None:
    made = LatencyModel((1.0, 3.0, 0.5, 0.02, 0.7, 0.1))
    found = LatencyModel.fit({v: made.shape(v) for v in FAMILY})
    assert found.costs == pytest.approx(made.costs, rel=1e-3)
    assert found.worst < 1e-3


def test_the_error_is_that_of_networks_left_out() -> None:
    times = {v: PRIOR.shape(v) for v in FAMILY}
    times[variant("b3")] *= 1.5  # no sum of blocks explains that
    model = LatencyModel.fit(times)
    assert model.errors["b3 at 300"] == pytest.approx(1 / 1.5 - 1, abs=0.02)
    assert model.worst >= 0.3
    milliseconds, (low, high) = model.predict(variant("b2"))
    assert low == pytest.approx(milliseconds * (1 - model.worst))
    assert high == pytest.approx(milliseconds * (1 + model.worst))


def test_other_resolutions_cost_by_their_area() -> None:
    ratio = work(variant("b0").at(448))[:5] / work(variant("b0"))[:5]
    assert ratio == pytest.approx(np.full(5, 4.0))
    assert work(variant("b0").at(448))[5] == work(variant("b0"))[5]  # the weights are the same


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(BadInput, match=f"3 networks are too few to learn {len(UNITS)} costs"):
        LatencyModel.fit({v: 1.0 for v in FAMILY[:3]})


def test_a_model_without_errors_promises_nothing() -> None:
    assert replace(PRIOR).predict(variant("b0"))[1][1] == float("inf")
