"""Sizes, defaults and tolerances of the networks: published values, and numbers that no run may lose."""

import stat

import pytest
import torch

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.coordinates import coordinate_check
from dit.network.embeddings import sincos_table
from dit.network.export import save_safetensors
from dit.network.parametrization import EMBEDDING_STD, MUP_ADAM_EPS
from dit.network.presets import PRESETS
from dit.network.published import _is_sincos, _listed
from tests.values import changeable, defaults


def test_values_do_not_change() -> None:
    assert changeable("dit.network") == set()


def test_sizes_are_those_of_the_papers() -> None:
    """Depth, width and heads: DiT 2212.09748, table 1; U-ViT 2209.12152, table 1."""
    dit = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    uvit = {"S": (13, 512, 8), "M": (17, 768, 12), "L": (21, 1024, 16), "H": (29, 1152, 16)}
    expected = {f"DiT-{size}/{patch}": (*row, patch) for size, row in dit.items() for patch in (2, 4, 8)}
    expected |= {f"U-ViT-{size}/{patch}": (*row, patch) for size, row in uvit.items() for patch in (2, 4)}
    found = {name: (one.depth, one.width, one.heads, one.patch_size) for name, one in PRESETS.items()}
    assert {name: found[name] for name in expected} == expected
    others = {name: row for name, row in found.items() if name not in expected}
    assert sorted(row[3] for row in others.values()) == [1, 1, 1, 2, 2, 2]
    assert {row[:3] for row in others.values()} == {dit["B"], dit["L"], dit["XL"]}


def test_defaults_are_those_of_the_documents() -> None:
    """mlp_ratio 4: Peebles & Xie; Adam's rate and ten steps: the coordinate check of Yang et al. (2203.03466)."""
    found = defaults("dit.network")
    assert set(found["mlp_ratio"].values()) == {4.0} and set(found["weight_decay"].values()) == {0.0}
    for name in ("rope", "qk_norm", "long_skips", "joins_skip", "reads_variance"):
        assert {value for value in found[name].values() if value is not None} == {False}, name
    check = {name: one["coordinate_check"] for name, one in found.items() if "coordinate_check" in one}
    assert check == {
        "widths": (72, 144, 288, 576),
        "seeds": (0, 1, 2),
        "depth": 2,
        "lr": 1 / 4096,
        "steps": 10,
    }
    ladder = {name: one["ladder"] for name, one in found.items() if "ladder" in one}
    assert {name: ladder[name] for name in ("aspect", "head_dim", "patch_size")} == {
        "aspect": 64, "head_dim": 64, "patch_size": 2
    }  # fmt: skip
    assert set(found["bytes_per_element"].values()) == {4} and set(found["seed"].values()) == {0}
    assert found["n_extra"]["rope_table"] == 0 and found["batch_size"]["count_dict"] == 1
    assert (EMBEDDING_STD, MUP_ADAM_EPS) == (0.02, 1e-16)


def test_the_coordinate_check_is_of_what_it_says() -> None:
    """Eight inputs of 4 x 8 x 8 and ten classes, heads of 36, patches of 2; scales before the first step."""
    generator = torch.Generator().manual_seed(0)
    x, _ = torch.randn(2, 8, 4, 8, 8, generator=generator)
    t = torch.rand(8, generator=generator) * 1000
    told = labelled(torch.randint(10, (8,), generator=generator))
    built = DiTConfig(144, 2, 4, 2).build(Domain.of((4, 8, 8)), Classes(10), seed=5)
    scales: dict[str, float] = {}
    for name in ("x_embedder", "t_embedder", "blocks.0.attn", "blocks.1.mlp"):
        built.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: scales.update({name: output.abs().mean().item()})
        )
    built(x, t, told)
    rows = coordinate_check("standard", (144,), (5,), steps=1)
    assert {row["step"] for row in rows} == {0, 1}
    first = {row["layer"]: row["scale"] for row in rows if row["step"] == 0}
    layers = {"x_embedder": "patch embedding", "t_embedder": "time embedding", "blocks.0.attn": "block 0 attn",
              "blocks.1.mlp": "block 1 mlp"}  # fmt: skip
    assert {name: first[layer] for name, layer in layers.items()} == pytest.approx(scales, rel=1e-6)


@pytest.mark.parametrize(("off", "same"), [(0.95e-5, True), (1.05e-5, False)])
def test_tables_are_sines_to_a_hundred_thousandth(off: float, same: bool) -> None:
    table = sincos_table(16, (2, 2))[None]
    assert _is_sincos(table + off, (2, 2)) == same
    assert _is_sincos(None, (2, 2)) and not _is_sincos(table, (2, 3))


def test_six_names_are_shown() -> None:
    assert _listed(set("abcdef")) == "a, b, c, d, e, f"
    assert _listed(set("abcdefgh")) == "a, b, c, d, e, f and 2 more" and _listed(set()) == "none"


def test_exported_files_are_for_all_to_read(tmp_path) -> None:
    model = DiTConfig(16, 1, 1, 2).build(Domain.of((4, 4, 4)), Classes(2))
    save_safetensors(model, tmp_path / "a.safetensors")
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o644
