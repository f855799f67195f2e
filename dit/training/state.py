"""What a checkpoint holds of a training run: weights, averages, the optimizer's state and the meters, by name."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from dit.errors import InputError
from dit.network.base import Network
from dit.training.averaging import Averages
from dit.training.meters import Meters


def gather(
    network: Network, optimizer: torch.optim.Optimizer, averages: Averages, meters: Meters
) -> dict[str, Tensor]:
    """Every tensor that a resumed run needs, by name; shards where parameters are sharded."""
    tensors = {"meters": meters.state()}
    for name, parameter in network.named_parameters():
        tensors[f"network/{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{name}/{key}"] = value
    for profile, shadow in averages.shadows.items():
        for name, value in shadow.items():
            tensors[f"average/{profile}/{name}"] = value
    return tensors


@torch.no_grad()
def restore(
    tensors: Mapping[str, Tensor],
    network: Network,
    optimizer: torch.optim.Optimizer,
    averages: Averages,
    meters: Meters,
) -> None:
    """Puts the tensors of ``gather`` back, sharded as the parameters are now; each is asked for once.

    Raises:
        InputError: they are of another network, or lack an average: those of a run to branch from may.
    """
    followed = (f"average/{profile}/{name}" for profile, of in averages.shadows.items() for name in of)
    wanted = {"meters", *followed, *(f"network/{name}" for name, _ in network.named_parameters())}
    if missing := wanted - set(tensors):
        raise InputError(
            "branch_from",
            f"(no {min(missing)} in it)",
            "a checkpoint of this network with these averages",
        )
    meters.load(tensors["meters"])
    keys: dict[str, list[str]] = {}
    for name in tensors:
        if name.startswith("optimizer/"):
            parameter_name, key = name.removeprefix("optimizer/").rsplit("/", 1)
            keys.setdefault(parameter_name, []).append(key)
    for name, parameter in network.named_parameters():
        stored = tensors[f"network/{name}"]
        if stored.shape != parameter.shape:
            raise InputError(
                "branch_from",
                f"({name} of shape {tuple(stored.shape)})",
                f"a checkpoint of this network, whose {name} has shape {tuple(parameter.shape)}",
            )
        parameter.copy_(_like(stored, parameter))
        states = {key: tensors[f"optimizer/{name}/{key}"] for key in keys.get(name, ())}
        optimizer.state[parameter] = {
            key: _like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
            for key, value in states.items()
        }
    for profile, shadow in averages.shadows.items():
        for name, value in shadow.items():
            value.copy_(_like(tensors[f"average/{profile}/{name}"], value))


def _like(whole: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor on the device, and in the sharding, of ``reference``."""
    whole = whole.to(reference.device)
    if isinstance(reference, DTensor):
        return distribute_tensor(whole, reference.device_mesh, reference.placements, src_data_rank=None)
    return whole
