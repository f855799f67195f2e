"""What the step runs on, and how its processes share the network.

All sharing is FSDP2 (``fully_shard`` per block) on a device mesh; the strategies differ in the mesh alone:

    single  one process, nothing shared
    ddp     (world, 1)              whole copies, averaged gradients
    fsdp    (world,)                parameters, gradients, optimizer and averages in shards over all ranks
    hsdp    (nodes, ranks of one)   shards within a node, copies between nodes

Source: Zhao et al. 2023, arXiv 2304.11277, sections 3.2-3.3 for full and hybrid sharding.
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from dit.errors import InputError, check_choice, check_number
from dit.launch import World
from dit.network.base import Network
from dit.training.hardware import Hardware

# Lightning announces devices and tips for every trainer; a study makes many.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
# Lightning 2.6 on torch 2.15, nothing a user can mend
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
# a study's driver or a run of one process is right without srun, on a machine that has it
warnings.filterwarnings("ignore", message=".*srun.*")

STRATEGIES = ("auto", "single", "ddp", "fsdp", "hsdp")


@dataclass(frozen=True)
class Strategy:
    """How a step is carried out; none of it moves the numbers beyond rounding.

    Args:
        name: ``auto`` (single in a world of one, else fsdp) or another of STRATEGIES.
        accumulation: parts in which each rank takes its share of the batch, one after another.
        activation_checkpointing: what a block computes again in the backward pass instead of keeping it: ``none``;
            ``nonlinearity``, of the MLP alone; ``selective``, all but what matrix products and attention return;
            ``full``, all but its input. ``auto`` is ``nonlinearity`` where blocks are compiled: a kernel of their
            backward pass reads its input anyway; else ``none``.
        compile: ``none`` | ``block`` (each block on its own: short start-up) | ``model`` (the network as one graph;
            not where it is shared, whose hooks would break the graph at each block).
    """

    name: str = "auto"
    accumulation: int = 1
    activation_checkpointing: str = "auto"
    compile: str = "none"

    def __post_init__(self) -> None:
        check_choice("strategy", self.name, STRATEGIES)
        check_number("accumulation", self.accumulation, low=1, integer=True)
        check_choice("activation_checkpointing", self.activation_checkpointing, ("auto", "none", *POLICIES))
        check_choice("compile", self.compile, ("none", "block", "model"))

    @property
    def recomputed(self) -> str:
        """The level of activation checkpointing, with ``auto`` decided."""
        if self.activation_checkpointing != "auto":
            return self.activation_checkpointing
        return "none" if self.compile == "none" else "nonlinearity"

    def resolve(self, world: World, batch_size: int) -> str:
        """The strategy's name, checked against the world and the global batch.

        Raises:
            InputError: it does not fit.
        """
        name = self.name if self.name != "auto" else ("single" if world.size == 1 else "fsdp")
        if name == "single" and world.size > 1:
            raise InputError(
                "strategy", "single", f"ddp, fsdp or hsdp for {world.size} processes", "Or start one process."
            )
        if name != "single" and self.compile == "model":
            raise InputError("compile", "model", f"none or block with strategy={name}")
        if batch_size % (world.size * self.accumulation):
            raise InputError(
                "batch_size",
                batch_size,
                f"a multiple of {world.size} processes x accumulation {self.accumulation}",
            )
        return name

    def prepare(self, network: Network, name: str, world: World, hardware: Hardware) -> None:
        """Puts a network on its device, and recomputes, compiles and shards it, in place; its names stay."""
        network.to(hardware.torch_device(world))  # before averages and optimizer are made of its parameters
        if self.recomputed != "none":
            for block in network.blocks:
                recompute(block, POLICIES[self.recomputed])
        if self.compile == "block":
            for block in network.blocks:
                block.forward = torch.compile(block.forward)
        elif self.compile == "model":
            network.forward = torch.compile(network.forward)
        if name != "single":
            policy = MixedPrecisionPolicy(
                cast_forward_inputs=False
            )  # times reach 1000, which bfloat16 rounds
            if hardware.is_bf16:
                policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
            mesh = device_mesh(name, world, hardware.torch_device(world).type)
            for module in (*network.blocks, network):
                fully_shard(module, mesh=mesh, mp_policy=policy)


def device_mesh(name: str, world: World, device_type: str) -> DeviceMesh:
    """The ranks as a strategy sees them: (sharded,), or (copies, sharded)."""
    if name == "fsdp":
        return init_device_mesh(device_type, (world.size,))
    shards = 1 if name == "ddp" else world.local_size
    return init_device_mesh(
        device_type, (world.size // shards, shards), mesh_dim_names=("replicate", "shard")
    )


# What is dear to compute and kept by selective checkpointing.
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.linear.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)


# The widest of a block's activations and cheap to compute.
_NONLINEAR = (torch.ops.aten.gelu.default, torch.ops.aten.silu.default)


def _keep_dear(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _drop_nonlinear(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_RECOMPUTE if operation in _NONLINEAR else CheckpointPolicy.PREFER_SAVE


# Levels of activation checkpointing: what torch is told of each operation; None keeps the block's input alone.
POLICIES: dict[str, Callable[..., CheckpointPolicy] | None] = {
    "nonlinearity": _drop_nonlinear,
    "selective": _keep_dear,
    "full": None,
}


def recompute(block: torch.nn.Module, policy: Callable[..., CheckpointPolicy] | None) -> None:
    """Has a block forget activations, by one of POLICIES, and compute them again in the backward pass."""
    contexts = {"context_fn": functools.partial(create_selective_checkpoint_contexts, policy)}
    options = {"use_reentrant": False, "preserve_rng_state": False, **(contexts if policy else {})}
    forward = block.forward

    def recomputed(*inputs: Any, **named: Any) -> Any:
        return checkpoint(forward, *inputs, **named, **options)

    block.forward = recomputed


def make_trainer(
    hardware: Hardware, strategy: str, world: World, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """A bare trainer of a resolved strategy: checkpoints, logs, processes and signals are ours."""
    torch.set_num_threads(hardware.threads)
    device = hardware.torch_device(world)
    if device.type == "cpu":
        # Lightning sets it, and torch's optimizers then look for NVIDIA's library on the disk in every step
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    sharded = strategy != "single"
    precision: Any = "bf16-mixed" if hardware.is_bf16 and not sharded else "32-true"
    trainer = L.Trainer(
        accelerator=device.type if device.type == "cpu" else "cuda",
        devices=world.local_size,
        num_nodes=world.size // world.local_size,
        strategy=ModelParallelStrategy(world.size, 1) if sharded else "auto",
        precision=precision,
        max_epochs=1,  # the batches end with the run; Lightning's own steps leave out those that were skipped
        callbacks=list(callbacks),
        plugins=[_Environment(world)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    # Lightning 2.6 answers SIGTERM with a collective inside the handler, which hangs when the ranks are at
    # different steps (its issue 21406); dit/signals.py is the only handler.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


class _Environment(ClusterEnvironment):
    """A world that has met already, as Lightning wants to hear of it; it would guess from the environment otherwise."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the processes have met before the trainer is made")

    @property
    def main_port(self) -> int:
        raise AssertionError("the processes have met before the trainer is made")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world.size

    def set_world_size(self, size: int) -> None:
        assert size == self.world.size, (size, self.world)

    def global_rank(self) -> int:
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.world.rank, (rank, self.world)

    def local_rank(self) -> int:
        return self.world.local_rank

    def node_rank(self) -> int:
        return self.world.rank // self.world.local_size
