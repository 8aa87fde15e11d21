from pathlib import Path

import pytest
import torch
from torch import nn

from edgeeff.network.learner import Learner, averaged


def trainee() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def learner(network: nn.Sequential) -> Learner[nn.Sequential]:
    return Learner(network, torch.optim.AdamW(network.parameters(), lr=0.1), decay=0.5)


def steps(learner: Learner[nn.Sequential], count: int) -> None:
    for _ in range(count):
        learner.step(learner.network(torch.randn(4, 3)).square().sum(), 0.1)


def test_the_average_follows_weights_and_statistics_as_by_hand() -> None:
    network = trainee()
    average = averaged(network, 0.5)
    expected = {k: v.clone() for k, v in network.state_dict().items()}
    for step in range(1, 13):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor += step
        average.update_parameters(network)
        decay = min(0.5, step / (step + 9))  # the ninth step is the first at the full decay
        for k, value in network.state_dict().items():
            expected[k] = decay * expected[k] + (1 - decay) * value if value.is_floating_point() else value.clone()
    for k, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[k])
    assert int(average.module[1].num_batches_tracked) == sum(range(1, 13))


def test_the_average_begins_as_the_network() -> None:
    network = trainee()
    average = averaged(network, 0.998)
    assert all(torch.equal(a, b) for a, b in zip(average.module.parameters(), network.parameters(), strict=True))
    assert average.module[0].weight is not network[0].weight


def test_a_resumed_learner_goes_on_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole = learner(trainee())
    steps(whole, 3)
    whole.save(tmp_path / "state.pt", {"epochs": 3})
    resumed = learner(trainee())
    assert resumed.resume(tmp_path / "state.pt") == {"epochs": 3}
    for each in (whole, resumed):
        torch.manual_seed(1)
        steps(each, 3)
    for a, b in zip(whole.averaged.state_dict().values(), resumed.averaged.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_large_gradients_are_clipped() -> None:
    network = nn.Linear(1, 1, bias=False)
    learner = Learner(network, torch.optim.SGD(network.parameters(), lr=1.0), decay=0.5)
    before = network.weight.item()
    learner.step((1000 * network.weight).sum(), lr=1.0)
    assert before - network.weight.item() == pytest.approx(5.0)
