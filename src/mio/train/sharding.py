"""Weights, gradients and optimizer states in shards, rows of each on every rank (FSDP2); models know nothing of it.

AdamW works on shards as they are; Muon gathers one matrix at a time (`optim.Muon`). Nothing here loads torch's tensors
of many ranks before there is more than one: that takes as long as a small command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

from mio.train.parallel import rank, world
from mio.types import MioError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(module: nn.Module, replicas: int = 1) -> None:
    """Split every parameter over the ranks, in place. What lists of modules hold (layers) is gathered one by one while
    it is used. `replicas`: so many groups of ranks hold the whole module each (HSDP). Alone, a rank keeps all.

    Raises:
        MioError: a part writes to its own buffers, which ranks would do each for themselves; or ranks do not go into
        `replicas` groups.
    """
    _check(module, replicas)
    if world() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kind, groups = next(module.parameters()).device.type, world() // replicas
    sizes = {"shard": groups} if replicas == 1 else {"replica": replicas, "shard": groups}
    mesh = init_device_mesh(kind, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    for unit in (*_layers(module), module):
        state = fully_shard(unit, mesh=mesh)
        state.set_gradient_divide_factor(1.0)  # a step divides by its weight, once
        state.set_force_sum_reduction_for_comms(True)  # gloo cannot divide while it sums


def _check(module: nn.Module, replicas: int) -> None:
    for name, part in module.named_modules():
        if next(part.buffers(recurse=False), None) is not None:
            raise MioError("A part that keeps buffers cannot be sharded.", at=name, fix="Train it with whole ranks.")
    if world() % replicas:
        fix = "Let replicas divide the ranks."
        raise MioError(f"{world()} ranks do not go into {replicas} groups.", at="replicas", fix=fix)


def _layers(module: nn.Module) -> list[nn.Module]:
    """Inner ones first."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    return [layer for some in reversed(lists) for layer in some]


def split(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether ranks hold parts of it."""
    if world() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def sharded(module: nn.Module) -> bool:
    return any(split(parameter) for parameter in module.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All rows, on every rank, which must all ask for them."""
    return tensor.full_tensor() if split(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's rows."""
    return tensor.to_local() if split(tensor) else tensor


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank has whole, split as `like` is; nothing is sent."""
    if not split(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """A state dict of whole tensors, apart from the module's memory; empty on all ranks but the first."""
    state = {}
    for name, tensor in module.state_dict().items():
        rows = whole(tensor.detach())
        if rank() == 0:
            state[name] = rows.clone()
    return state


def piece(module: nn.Module) -> tuple[int, int] | None:
    """Which piece of how many this rank writes of a module; None where another rank writes the same."""
    parameter = next(module.parameters())
    if not split(parameter):
        return (0, 1) if rank() == 0 else None
    mesh = parameter.device_mesh
    *replica, number = mesh.get_coordinate() or (0,)
    return None if any(replica) else (number, mesh.size(-1))


def send_gradients(module: nn.Module, now: bool) -> None:
    """Whether the next backward pass sums gradients over ranks, or only adds to this rank's."""
    if sharded(module):
        module.set_requires_gradient_sync(now)  # type: ignore[operator]
