"""Counts equal the papers', torch's own counter and the parameters that exist."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.counting import activation_bytes, count, count_dict
from dit.network.dit import DiT
from dit.network.options import CONDITIONINGS
from dit.network.presets import PRESETS

# DiT 2212.09748 recomputed without rounding, latents 4x32x32, 8 output channels, 1,000 classes:
# name -> (GMACs, trainable parameters in millions, the paper's "Gflops").
DIT_TABLE = {
    "DiT-S/8": (0.358, 33.14, 0.36),
    "DiT-S/4": (1.413, 32.92, 1.41),
    "DiT-S/2": (6.056, 32.87, 6.06),
    "DiT-B/8": (1.418, 130.87, 1.42),
    "DiT-B/4": (5.565, 130.43, 5.56),
    "DiT-B/2": (23.005, 130.32, 23.01),
    "DiT-L/8": (5.011, 458.58, 5.01),
    "DiT-L/4": (19.696, 457.99, 19.70),
    "DiT-L/2": (80.698, 457.84, 80.71),
    "DiT-XL/8": (7.392, 675.66, 7.39),
    "DiT-XL/4": (29.044, 675.00, 29.05),
    "DiT-XL/2": (118.621, 674.83, 118.64),
}
# XL/2 with each conditioning, from the paper's comparison of blocks: (Gflops, parameters in M).
XL2_CONDITIONINGS = {
    "in_context": (119.37, 449),
    "cross_attention": (137.62, 598),
    "adaln": (118.56, 600),
    "adaln_zero": (118.64, 675),
}
OPTIONS = [
    {},
    {"norm": "rms"},
    {"mlp": "swiglu"},
    {"rope": True},
    {"qk_norm": True},
    {"positions": "learned"},
    {"long_skips": True},
    {"mlp_ratio": 2.5},
    {
        "norm": "rms",
        "mlp": "swiglu",
        "rope": True,
        "qk_norm": True,
        "long_skips": True,
        "positions": "learned",
    },
]
SHAPE, CLASSES, OUT = (4, 8, 12), 10, 8
# The first part of a parameter's name, or of its name within a block -> the group that it belongs to.
GROUPS = {
    "x_embedder": "patch_embedding",
    "pos_embed": "positions",
    "t_embedder": "time_embedding",
    "y_embedder": "label_embedding",
    "attn": "attention",
    "cross_attn": "cross_attention",
    "mlp": "mlp",
    "modulation": "modulation",
    "norm1": "norms",
    "norm2": "norms",
    "norm_cross": "norms",
    "skip": "skips",
    "final_layer": "output",
}


@pytest.mark.parametrize(("name", "row"), DIT_TABLE.items())
def test_counts_equal_the_dit_paper(name: str, row: tuple[float, float, float]) -> None:
    counts = count(PRESETS[name], Domain(4, (32, 32)), Classes(1000), 8)
    gmacs, parameters, printed = row
    assert counts.macs_per_image / 1e9 == pytest.approx(gmacs, abs=0.0005)
    assert counts.macs_per_image / 1e9 == pytest.approx(printed, rel=1e-3, abs=0.005)  # the paper's rounding
    assert counts.n_params_total / 1e6 == pytest.approx(parameters, abs=0.005)


def test_published_totals_of_single_networks() -> None:
    xl2 = PRESETS["DiT-XL/2"]
    assert count(xl2, Domain(4, (32, 32)), Classes(1000), 8).n_params_with_position_table == 675_129_632
    assert count(xl2, Domain(4, (64, 64)), Classes(1000), 8).macs_per_image / 1e9 == pytest.approx(
        524.60, rel=1e-3
    )  # the paper's
    assert count(xl2, Domain(4, (64, 64)), Classes(1000), 8).macs_per_image / 1e9 == pytest.approx(
        524.5, abs=0.05
    )
    # LightningDiT 2501.01423 logs 675.26M for XL/1 on 32-channel latents of 16x16.
    lightning = count(PRESETS["LightningDiT-XL/1"], Domain(32, (16, 16)), Classes(1000))
    assert lightning.n_params_with_position_table / 1e6 == pytest.approx(675.26, abs=0.005)


@pytest.mark.parametrize(("conditioning", "row"), XL2_CONDITIONINGS.items())
def test_counts_of_the_four_conditionings_equal_the_paper(conditioning: str, row: tuple[float, int]) -> None:
    config = dataclasses.replace(PRESETS["DiT-XL/2"], conditioning=conditioning)
    counts = count(config, Domain(4, (32, 32)), Classes(1000), 8)
    assert counts.macs_per_image / 1e9 == pytest.approx(row[0], rel=1e-3)
    assert counts.n_params_total / 1e6 == pytest.approx(row[1], abs=0.5)


def test_counts_equal_the_reference_table(shared: Path) -> None:
    with (shared / "reference/published.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["model"] in DIT_TABLE and r["train_steps"] == "400000"]
    assert len(rows) == 12
    for row in rows:
        counts = count(PRESETS[row["model"]], Domain(4, (32, 32)), Classes(1000), 8)
        assert counts.macs_per_image / 1e9 == pytest.approx(float(row["gflops_fwd"]), rel=1e-3)
        assert counts.n_params_total / 1e6 == pytest.approx(float(row["params_M"]), rel=1e-3)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_closed_form_equals_torch(conditioning: str, options: dict) -> None:
    config = DiTConfig(48, 5, 4, 2, conditioning=conditioning, **options)
    counts, model = (
        count(config, Domain.of(SHAPE), Classes(CLASSES), OUT),
        DiT(config, Domain.of(SHAPE), Classes(CLASSES), OUT),
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, *SHAPE), torch.zeros(2), labelled(torch.tensor([0, CLASSES])))
    assert counts.macs_per_image == pytest.approx(counter.get_total_flops() / 2 / 2, rel=1e-3)
    groups: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        groups[GROUPS[parts[2] if parts[0] == "blocks" else parts[0]]] += parameter.numel()
    assert counts.n_params_by_group == dict(groups)
    assert counts.n_params_total == sum(p.numel() for p in model.parameters())
    assert counts.n_position_table == sum(
        b.numel() for n, b in model.named_buffers() if n == "position_table"
    )


def test_training_flops_are_three_forwards() -> None:
    """Torch's own count of forward and backward, but for the input's gradient, which nobody needs."""
    config = DiTConfig(64, 6, 4, 2)
    counts, model = (
        count(config, Domain.of(SHAPE), Classes(CLASSES)),
        DiT(config, Domain.of(SHAPE), Classes(CLASSES)),
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *SHAPE), torch.zeros(1), labelled(torch.tensor([0]))).sum().backward()
    first_layers = SHAPE[0] * 4 * 64 * counts.tokens + 256 * 64  # patches and time features need no gradient
    assert counts.train_flops_per_image == counter.get_total_flops() + 2 * first_layers
    assert counts.macs_per_token == counts.macs_per_image / 24


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_activation_estimate_is_what_autograd_saves(conditioning: str, options: dict) -> None:
    config = DiTConfig(128, 3, 4, 2, conditioning=conditioning, **options)
    shape = (4, 16, 16)
    model = DiT(config, Domain.of(shape), Classes(CLASSES))
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(torch.randn(2, *shape), torch.rand(2), labelled(torch.tensor([0, CLASSES])))
    assert out.requires_grad
    actual = sum(storage.nbytes() for storage in saved.values())
    assert activation_bytes(config, Domain.of(shape), Classes(CLASSES), batch_size=2) == pytest.approx(
        actual, rel=0.05
    )


def test_counts_are_ready_for_json() -> None:
    row = json.loads(
        json.dumps(count_dict(PRESETS["DiT-S/2"], Domain(4, (32, 32)), Classes(1000), 8, batch_size=256))
    )
    assert row["macs_per_image"] == sum(row["macs_by_part"].values())
    assert row["n_params_total"] == sum(row["n_params_by_group"].values())
    assert row["train_flops_per_image"] == 6 * row["macs_per_image"]
    assert row["activation_bytes_float32"] == 2 * row["activation_bytes_bfloat16"]


def test_counting_imports_no_torch() -> None:
    code = "import dit.network.counting, dit.network.presets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_activations_of_a_dit_are_twenty_widths_a_token_and_block() -> None:
    """6 of two modulated norms, 3 of q, k and v, 1 of attention, 8 of the MLP, 2 of gates; at last a norm."""
    config = DiTConfig(32, 4, 4, 2)
    tokens, size = 16, 4
    kept = activation_bytes(config, Domain(4, (8, 8)), Classes(10), batch_size=1)
    assert kept == tokens * size * 32 * (4 * 20 + 3)
    skips = activation_bytes(
        dataclasses.replace(config, long_skips=True), Domain(4, (8, 8)), Classes(10), batch_size=1
    )
    assert skips - kept == tokens * size * 32 * 2 * 2  # two widths for each of two skips
    plain = activation_bytes(
        dataclasses.replace(config, conditioning="adaln"), Domain(4, (8, 8)), Classes(10), batch_size=1
    )
    assert kept - plain == tokens * size * 32 * 4 * 2  # without gates
