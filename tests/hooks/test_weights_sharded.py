"""Weights of which each of two processes holds a part are read whole, changed part by part, and hashed as one."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from hooks.fingerprint import fingerprint
from hooks.weights import matrix_of, weight_of, weights_of, write_matrix
from tests.processes import do_in_processes

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
]


def layers() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def of_one_process() -> None:
    """What each process finds; a difference ends it, and so the test."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    torch.distributed.init_process_group("gloo")
    mesh, plain, model = init_device_mesh("cpu", (2,)), layers(), layers()
    for layer, placement in ((model[0], Shard(0)), (model[2], Shard(1))):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [placement]))
        layer.bias = nn.Parameter(distribute_tensor(layer.bias.detach(), mesh, [Replicate()]))
    for mine, whole in zip((model[0], model[2]), (plain[0], plain[2]), strict=True):
        assert torch.equal(weight_of(mine), whole.weight)
        assert torch.equal(weight_of(mine, "bias"), whole.bias)
    assert fingerprint(model) == fingerprint(plain)
    assert [name for name, _ in weights_of(model)] == [name for name, _ in weights_of(plain)]
    for mine in (model[0], model[2]):
        W = torch.randn(matrix_of(mine).shape, generator=torch.Generator().manual_seed(1))
        before = mine.weight.to_local().shape
        write_matrix(mine, W)
        assert torch.equal(matrix_of(mine), W)
        assert mine.weight.to_local().shape == before
    torch.distributed.destroy_process_group()


def test_a_shard_of_each_of_two_processes_is_read_whole_and_written_in_part() -> None:
    do_in_processes(of_one_process)
