"""The digest of a PyTorch model: the same for the same bytes, another for any other."""

from __future__ import annotations

import pytest

from criu_train.integrations.torch_state import digest_of

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    )


def test_the_same_bytes_have_the_same_digest() -> None:
    assert digest_of(network()) == digest_of(network())


@pytest.mark.parametrize("name", [name for name, _ in [*network().named_parameters(), *network().named_buffers()]])
def test_any_other_number_has_another_digest(name: str) -> None:
    changed = network()
    with torch.no_grad():
        dict([*changed.named_parameters(), *changed.named_buffers()])[name].flatten()[0] += 1
    assert digest_of(changed) != digest_of(network())


def test_a_parameter_that_does_not_lie_in_one_piece_is_read_as_it_is() -> None:
    whole, apart = torch.nn.Module(), torch.nn.Module()
    numbers = torch.arange(6.0).reshape(2, 3)
    apart.register_parameter("weight", torch.nn.Parameter(numbers.t()))
    whole.register_parameter("weight", torch.nn.Parameter(numbers.t().contiguous()))
    assert digest_of(apart) == digest_of(whole)
