"""Files of DiT, SiT and LightningDiT: round trips, refusals, and no code run from a file.

The layouts themselves were compared with the published model code of the three projects on a development
machine: forward equal to 1e-6 in float32 for every option; that code is not part of this repository.
"""

import argparse
import dataclasses
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit.condition import Classes
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Noise, Score, Target, Velocity
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.export import load_safetensors, save_dit, save_safetensors
from dit.network.presets import PRESETS
from dit.network.published import load_published

from .test_dit import batch, trained

SHAPE, CLASSES = (4, 8, 8), 10
LIGHTNING = {"norm": "rms", "mlp": "swiglu", "rope": True}
# Names that facebookresearch/DiT's models.py gives to a network of depth 1.
DIT_NAMES = {
    "pos_embed": (1, 16, 32),
    "x_embedder.proj.weight": (32, 4, 2, 2),
    "x_embedder.proj.bias": (32,),
    "t_embedder.mlp.0.weight": (32, 256),
    "t_embedder.mlp.0.bias": (32,),
    "t_embedder.mlp.2.weight": (32, 32),
    "t_embedder.mlp.2.bias": (32,),
    "y_embedder.embedding_table.weight": (11, 32),
    "blocks.0.attn.qkv.weight": (96, 32),
    "blocks.0.attn.qkv.bias": (96,),
    "blocks.0.attn.proj.weight": (32, 32),
    "blocks.0.attn.proj.bias": (32,),
    "blocks.0.mlp.fc1.weight": (128, 32),
    "blocks.0.mlp.fc1.bias": (128,),
    "blocks.0.mlp.fc2.weight": (32, 128),
    "blocks.0.mlp.fc2.bias": (32,),
    "blocks.0.adaLN_modulation.1.weight": (192, 32),
    "blocks.0.adaLN_modulation.1.bias": (192,),
    "final_layer.linear.weight": (32, 32),
    "final_layer.linear.bias": (32,),
    "final_layer.adaLN_modulation.1.weight": (64, 32),
    "final_layer.adaLN_modulation.1.bias": (64,),
}


def network(depth: int = 2, out_channels: int = 8, **options) -> DiT:
    return trained(
        DiT(DiTConfig(32, depth, 4, 2, **options), Domain.of(SHAPE), Classes(CLASSES), out_channels)
    )


def assert_same(one: DiT, two: DiT) -> None:
    assert one.config == two.config
    assert (one.domain, one.kind, one.out_channels) == (
        two.domain,
        two.kind,
        two.out_channels,
    )
    assert one.state_dict().keys() == two.state_dict().keys()
    for name, parameter in one.state_dict().items():
        assert torch.equal(parameter, two.state_dict()[name]), name
    inputs = batch()
    assert torch.equal(one(*inputs), two(*inputs))


def test_names_and_shapes_are_those_of_dit(tmp_path: Path) -> None:
    save_dit(network(depth=1), tmp_path / "dit.pt")
    stored = torch.load(tmp_path / "dit.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == DIT_NAMES


def test_names_of_lightningdit(tmp_path: Path) -> None:
    save_dit(network(depth=1, qk_norm=True, **LIGHTNING), tmp_path / "l.pt")
    stored = torch.load(tmp_path / "l.pt", weights_only=True)
    added = {
        "blocks.0.norm1.weight": (32,),
        "blocks.0.norm2.weight": (32,),
        "final_layer.norm_final.weight": (32,),
        "blocks.0.attn.q_norm.weight": (8,),
        "blocks.0.attn.k_norm.weight": (8,),
        "blocks.0.mlp.w12.weight": (170, 32),
        "blocks.0.mlp.w12.bias": (170,),
        "blocks.0.mlp.w3.weight": (32, 85),
        "blocks.0.mlp.w3.bias": (32,),
        "feat_rope.freqs_cos": (16, 8),
        "feat_rope.freqs_sin": (16, 8),
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    assert shapes.keys() - DIT_NAMES.keys() == added.keys()
    assert {name: shapes[name] for name in added} == added


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("dit", {}),
        ("dit", {"positions": "learned"}),
        ("dit", {"mlp_ratio": 2.0, "qk_norm": True}),
        ("sit", {"time_convention": "sit"}),
        ("sit_noise", {"time_convention": "reversed"}),
        ("repa", {"time_convention": "repa"}),
        ("lightningdit", {"time_convention": "sit", **LIGHTNING}),
        ("lightningdit", {"time_convention": "sit", "mlp_ratio": 3.3, "qk_norm": True, **LIGHTNING}),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", ["plain", "ema", "ddp"])
def test_round_trips_are_bit_exact(layout: str, options: dict, wrapped: str, tmp_path: Path) -> None:
    model = network(out_channels=8 if layout == "dit" else 4, **options)
    path = tmp_path / "w.pt"
    save_dit(model, path)
    if wrapped != "plain":  # as DiT's train.py saves, its optimizer and its argparse.Namespace included
        stored = torch.load(path, weights_only=True)
        noise = {name: torch.randn_like(tensor) for name, tensor in stored.items()}
        prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in stored.items()}
        parts = {"ema": stored, "model": noise} if wrapped == "ema" else {"ema": noise, "model": prefixed}
        torch.save(
            {**parts, "opt": {"state": {}, "param_groups": []}, "args": argparse.Namespace(seed=0)}, path
        )
    back = load_published(path, layout, heads=4, weights="model" if wrapped == "ddp" else "ema")
    if "mlp_ratio" in options and options.get("mlp") == "swiglu":
        assert back.config.mlp_width == model.config.mlp_width  # the ratio itself is rounded away in the file
        back.config = dataclasses.replace(back.config, mlp_ratio=options["mlp_ratio"])
    assert_same(model, back)


# Seen towards data, a velocity has the other sign; noise and score are what they are.
SIGNS = {"sit": -1, "sit_noise": 1, "sit_score": 1}
SIGNS |= {"lightningdit": -1, "lightningdit_noise": 1, "lightningdit_score": 1}


@pytest.mark.parametrize("layout", SIGNS)
def test_time_and_sign_of_every_prediction_and_unread_channels(layout: str, tmp_path: Path) -> None:
    model = network(out_channels=8, **(LIGHTNING if "lightning" in layout else {}))
    save_dit(model, tmp_path / "sit.pt")
    with pytest.warns(UserWarning, match=r"sit\.pt: channels 4 to 7 of its output, which nobody reads"):
        sit = load_published(tmp_path / "sit.pt", layout, heads=4)
    x, s, y = batch()[0], torch.rand(3), batch()[2]
    assert sit.out_channels == 4
    # Their forward: features of s in [0, 1] (1 is data), first half of the channels.
    theirs = model(x, s, y)[:, :4]
    torch.testing.assert_close(sit(x, 1000 * (1 - s), y), SIGNS[layout] * theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "target"), [("sit", Velocity()), ("sit_noise", Noise()), ("sit_score", Score())]
)
def test_a_denoiser_of_sits_weights_says_what_sit_says(layout: str, target: Target, tmp_path: Path) -> None:
    """By the formulas of SiT (2401.08740, table 1): x_t = s x0 + (1 - s) eps on its linear path."""
    model = network(out_channels=4)
    save_dit(model, tmp_path / "sit.pt")
    denoiser = Denoiser(load_published(tmp_path / "sit.pt", layout, heads=4), Linear(), target)
    x, s, y = batch()[0], torch.tensor([0.2, 0.5, 0.9]), batch()[2]
    theirs, s4 = model(x, s, y), s[:, None, None, None]
    eps = {"sit": x - s4 * theirs, "sit_noise": theirs, "sit_score": -(1 - s4) * theirs}[layout]
    torch.testing.assert_close(denoiser(x, 1 - s, y).eps, eps, atol=1e-4, rtol=1e-4)


def test_weights_of_a_velocity_serve_no_other_target(tmp_path: Path) -> None:
    save_dit(network(out_channels=4), tmp_path / "sit.pt")
    with pytest.raises(InputError, match=r"network\.time_convention.*sit_noise"):
        Denoiser(load_published(tmp_path / "sit.pt", "sit", heads=4), Linear(), Noise())


def test_repa_shows_time_from_data_to_noise_and_keeps_projectors_beside(tmp_path: Path) -> None:
    model, path = network(out_channels=4), tmp_path / "repa.pt"
    save_dit(model, path)
    beside = {f"projectors.0.{i}.{kind}": torch.ones(2) for i in (0, 2, 4) for kind in ("weight", "bias")}
    torch.save({"ema": torch.load(path) | beside, "steps": 400_000}, path)
    with pytest.warns(UserWarning, match=r"left out.*projectors\.0\.0\.weight"):
        repa = load_published(path, "repa", heads=4)
    x, t, y = batch()[0], torch.rand(3), batch()[2]
    # REPA's forward: features of t in [0, 1] (1 is noise), velocity towards noise.
    torch.testing.assert_close(repa(x, 1000 * t, y), model(x, t, y), atol=1e-4, rtol=1e-4)
    for layout in ("dit", "sit", "lightningdit"):
        with pytest.raises(InputError, match=r"projectors\.\* is repa"):
            load_published(path, layout, heads=4)
    torch.save(torch.load(path)["ema"] | {"decoder.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"Unexpected: decoder\.weight"), pytest.warns(UserWarning):
        load_published(path, "repa", heads=4)


def test_outputs_of_other_channels_are_refused(tmp_path: Path) -> None:
    save_dit(network(out_channels=12), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"12 channels of output for 4.*4, or 8"):
        load_published(tmp_path / "w.pt", "dit", heads=4)


def test_wrapped_names_in_safetensors(tmp_path: Path) -> None:
    model = network()
    save_dit(model, tmp_path / "w.pt")
    stored = torch.load(tmp_path / "w.pt", weights_only=True)
    inside = {name: re.sub(r"(blocks\.\d+)", r"\1._orig_mod", name) for name in stored}  # of each block
    wrapped = {f"module._orig_mod.{inside[name]}": tensor.contiguous() for name, tensor in stored.items()}
    save_file(wrapped, tmp_path / "w.safetensors")
    assert_same(model, load_published(tmp_path / "w.safetensors", "dit", heads=4))


def test_safetensors_rebuild_the_network(tmp_path: Path) -> None:
    for options in (
        {},
        {"conditioning": "in_context", "long_skips": True, "positions": "learned"},
        LIGHTNING,
    ):
        model = network(depth=4, **options)
        save_safetensors(model, tmp_path / "w.safetensors")
        assert_same(model, load_safetensors(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="readable"):
        load_safetensors(Path(__file__))
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"format dit-network-1.*load_published"):
        load_safetensors(tmp_path / "foreign.safetensors")
    half = network().bfloat16()
    save_safetensors(half, tmp_path / "w.safetensors")
    assert load_safetensors(tmp_path / "w.safetensors").y_embedder.weight.dtype == torch.bfloat16


def test_heads_come_from_the_preset_of_the_same_shape(tmp_path: Path) -> None:
    model = DiT(PRESETS["DiT-S/2"], Domain(4, (4, 4)), Classes(3))
    save_dit(model, tmp_path / "s.pt")
    assert load_published(tmp_path / "s.pt", "dit").config == PRESETS["DiT-S/2"]
    save_dit(network(), tmp_path / "odd.pt")
    with pytest.raises(InputError, match="number of attention heads") as caught:
        load_published(tmp_path / "odd.pt", "dit")
    assert caught.value.key == "heads"
    save_dit(network(qk_norm=True), tmp_path / "told.pt")  # its norms have the width of a head
    assert load_published(tmp_path / "told.pt", "dit").config.heads == 4


def test_a_file_without_its_position_table(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "w.pt"
    save_dit(model, path)
    stored = torch.load(path, weights_only=True)
    with pytest.raises(InputError, match="pos_embed"):  # the table of another grid
        load_published(path, "dit", heads=4, input_shape=(4, 16, 16))
    del stored["pos_embed"]
    torch.save(stored, path)
    with pytest.raises(InputError, match="input_shape"):
        load_published(path, "dit", heads=4)
    assert_same(model, load_published(path, "dit", heads=4, input_shape=SHAPE))


def test_grids_that_are_not_square_need_their_shape(tmp_path: Path) -> None:
    model = trained(DiT(DiTConfig(32, 2, 4, 2), Domain(4, (8, 12)), Classes(CLASSES)))
    save_dit(model, tmp_path / "wide.pt")
    with pytest.raises(InputError, match="input_shape"):
        load_published(tmp_path / "wide.pt", "dit", heads=4)
    assert_same(model, load_published(tmp_path / "wide.pt", "dit", heads=4, input_shape=(4, 8, 12)))


def test_a_file_that_does_not_fit_names_its_weights_and_its_preset(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    save_dit(DiT(PRESETS["DiT-S/2"], Domain(4, (4, 4)), Classes(3)), path)
    with pytest.raises(InputError, match=r"looks like DiT-S/2") as caught:
        load_published(path, "dit", config=PRESETS["DiT-B/2"])
    assert "weights of DiT-B/2" in str(caught.value)
    assert "Missing: blocks.0.adaLN_modulation.1.bias (4608,)" in str(caught.value)
    assert "Unexpected: blocks.0.adaLN_modulation.1.bias (2304,)" in str(caught.value)
    stored = torch.load(path, weights_only=True)
    stored["blocks.3.lora.weight"] = stored.pop("blocks.3.mlp.fc1.weight")
    torch.save(stored, path)
    with pytest.raises(InputError) as caught:
        load_published(path, "dit")
    assert "Missing: blocks.3.mlp.fc1.weight. Unexpected: blocks.3.lora.weight." in str(caught.value)
    torch.save({"conv.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(InputError, match=r"no diffusion transformer.*Unexpected: conv\.weight"):
        load_published(path, "dit")
    save_dit(network(positions="learned"), path)
    with pytest.raises(InputError, match=r"network\.positions"):
        load_published(path, "dit", config=network().config)


def test_layouts_refuse_networks_they_have_not(tmp_path: Path) -> None:
    for options in ({"conditioning": "cross_attention"}, {"long_skips": True}):
        with pytest.raises(InputError, match=f"network.{next(iter(options))}"):
            save_dit(network(depth=4, **options), tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize(
    "wrap", [lambda bad: bad, lambda bad: {"ema": bad}, lambda bad: {"args": bad, "ema": {}}]
)
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_no_file_runs_code(wrap, kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "ran", tmp_path / "bad.pt"
    content = wrap(Malicious(victim))
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="runs no code"):
        load_published(path, "dit")
    assert not victim.exists()


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    for content in (b"", b"not a file of weights", b"PK\x03\x04"):
        path = tmp_path / "bad.pt"
        path.write_bytes(content)
        with pytest.raises(InputError, match="path"):
            load_published(path, "dit")
    with pytest.raises(InputError, match="existing file"):
        load_published(tmp_path / "absent.pt", "dit")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="readable"):
        load_published(tmp_path / "bad.safetensors", "dit")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="mapping"):
        load_published(tmp_path / "list.pt", "dit")
    torch.save({"ema": {}}, tmp_path / "e.pt")
    with pytest.raises(InputError, match="weights"):
        load_published(tmp_path / "e.pt", "dit", weights="model")
