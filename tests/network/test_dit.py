"""Properties of the network: what it computes, how it starts, where it runs."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dit.condition import Classes, Condition, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.options import CONDITIONINGS

SHAPE, CLASSES = (4, 8, 8), 10
EVERYTHING = {"norm": "rms", "mlp": "swiglu", "rope": True, "qk_norm": True, "long_skips": True}
OPTIONS = [{}, {"norm": "rms"}, {"positions": "learned", "long_skips": True}, {"rope": True}, EVERYTHING]


def trained(model: DiT, seed: int = 0) -> DiT:
    """A network whose weights are all random, as after training: the initial one puts out zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def batch(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> tuple[Tensor, Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *shape, generator=generator)
    return (
        x,
        torch.rand(n, generator=generator) * 1000,
        labelled(torch.tensor([0, CLASSES, 7, 3, 2, 9, 1, 5][:n])),
    )


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_variant_trains_and_uses_all_its_parameters(conditioning: str, options: dict) -> None:
    model = trained(
        DiT(
            DiTConfig(32, 4, 4, 2, conditioning=conditioning, **options),
            Domain.of(SHAPE),
            Classes(CLASSES),
            8,
        )
    )
    x, t, y = batch()
    out = model(x, t, y)
    assert out.shape == (3, 8, 8, 8)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_output_depends_on_time_and_label_and_on_no_other_sample(conditioning: str) -> None:
    model = trained(
        DiT(DiTConfig(32, 3, 4, 2, conditioning=conditioning), Domain.of(SHAPE), Classes(CLASSES))
    )
    x, t, y = batch()
    out = model(x, t, y)
    for i in range(3):
        torch.testing.assert_close(
            model(x[i : i + 1], t[i : i + 1], y.part(slice(i, i + 1)))[0], out[i], atol=1e-5, rtol=1e-4
        )
    assert (model(x, t + 100, y) - out).abs().max() > 1e-4
    assert (model(x, t, labelled((y["label"] + 1) % CLASSES)) - out).abs().max() > 1e-4
    null = Classes(CLASSES).null(3)
    torch.testing.assert_close(model(x, t), model(x, t, null))


def test_patches_are_a_convolution_and_its_inverse() -> None:
    model = trained(DiT(DiTConfig(32, 1, 4, 2), Domain.of(SHAPE), Classes(CLASSES)))
    x, _, _ = batch()
    weight = model.x_embedder.proj.weight.unflatten(1, (4, 2, 2))
    convolved = nn.functional.conv2d(x, weight, model.x_embedder.proj.bias, stride=2)
    torch.testing.assert_close(
        model.x_embedder(x), convolved.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_initial_weights_are_a_function_of_the_seed(conditioning: str, options: dict) -> None:
    config = DiTConfig(32, 4, 4, 2, conditioning=conditioning, **options)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = DiT(config, Domain.of(SHAPE), Classes(CLASSES), seed=5)
    assert torch.equal(torch.get_rng_state(), state), "building drew from the global random state"
    torch.manual_seed(2)
    same, other = (
        DiT(config, Domain.of(SHAPE), Classes(CLASSES), seed=5),
        DiT(config, Domain.of(SHAPE), Classes(CLASSES), seed=6),
    )
    with torch.device("meta"):
        late = DiT(config, Domain.of(SHAPE), Classes(CLASSES))
    late.to_empty(device="cpu").init_weights(torch.Generator().manual_seed(5))
    for name, parameter in one.state_dict().items():
        assert torch.equal(parameter, same.state_dict()[name]), name
        assert torch.equal(parameter, late.state_dict()[name]), name
    assert not torch.equal(one.x_embedder.proj.weight, other.x_embedder.proj.weight)
    x, t, y = batch()
    assert torch.equal(one(x, t, y), late(x, t, y))  # the tables were filled, too


def test_initial_network_is_silent_and_its_blocks_do_nothing() -> None:
    """adaLN-Zero: every block starts as the identity (DiT section 3.2), with long skips too."""
    for options in ({}, {"long_skips": True}):
        model = DiT(DiTConfig(32, 4, 4, 2, **options), Domain.of(SHAPE), Classes(CLASSES))
        x, t, y = batch()
        assert model(x, t, y).abs().max() == 0
        tokens = torch.randn(3, 16, 32)
        condition = torch.randn(3, 32)
        for block in model.blocks:
            skip = torch.randn(3, 16, 32) if block.skip is not None else None  # type: ignore[union-attr]
            torch.testing.assert_close(block(tokens, condition, None, skip), tokens)


def test_initial_scales_are_those_of_the_table() -> None:
    model = DiT(DiTConfig(256, 2, 4, 2), Domain.of(SHAPE), Classes(200))
    for name, std in {
        "y_embedder.weight": 0.02,
        "t_embedder.mlp.0.weight": 0.02,
        "t_embedder.mlp.2.weight": 0.02,
        "x_embedder.proj.weight": (2 / (16 + 256)) ** 0.5,
        "blocks.0.attn.qkv.weight": (2 / (4 * 256)) ** 0.5,
        "blocks.1.mlp.fc1.weight": (2 / (5 * 256)) ** 0.5,
    }.items():
        assert model.get_parameter(name).std().item() == pytest.approx(std, rel=0.03), name
        if "embedder" not in name:
            assert model.get_parameter(name).abs().max().item() <= std * 3**0.5 * (1 + 1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("conditioning", ["adaln_zero", "in_context"])
def test_runs_at_other_sizes(conditioning: str, options: dict) -> None:
    model = trained(
        DiT(DiTConfig(32, 4, 4, 2, conditioning=conditioning, **options), Domain.of(SHAPE), Classes(CLASSES))
    )
    for height, width in ((16, 16), (8, 12), (4, 8)):
        x, t, y = batch(shape=(4, height, width))
        assert model(x, t, y).shape == (3, 4, height, width)
    with pytest.raises(InputError, match=r"network\.patch_size"):
        model(torch.zeros(1, 4, 8, 9), torch.zeros(1), torch.tensor([0]))


def test_finer_grid_sees_the_same_picture() -> None:
    """Each pixel doubled in both directions: where a token stood, the finer grid gives nearly its output."""
    model = trained(DiT(DiTConfig(32, 2, 4, 1), Domain(4, (8, 8)), Classes(CLASSES)))
    x, t, y = batch()
    coarse, fine = model(x, t, y), model(x.repeat_interleave(2, 2).repeat_interleave(2, 3), t, y)
    at_same_places = fine[:, :, ::2, ::2]
    stranger = model(x.flip(3), t, y)
    assert (at_same_places - coarse).abs().mean() < 0.2 * (stranger - coarse).abs().mean()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_dtypes(conditioning: str) -> None:
    """float64 agrees to float32's rounding; the residual stream has the dtype of matrix products."""
    model = trained(
        DiT(DiTConfig(32, 3, 4, 2, conditioning=conditioning, rope=True), Domain.of(SHAPE), Classes(CLASSES))
    )
    x, t, y = batch()
    out = model(x, t, y)
    exact = copy.deepcopy(model).double()(x.double(), t.double(), y)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(out.double(), exact, atol=1e-4, rtol=1e-3)
    streams = []
    model.blocks[1].register_forward_hook(lambda _m, _i, o: streams.append(o.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x, t, y), out, atol=0.05, rtol=0.1)
    half = copy.deepcopy(model).bfloat16()(x, t, y)
    torch.testing.assert_close(half, out, atol=0.1, rtol=0.2)
    assert streams == [torch.bfloat16, torch.bfloat16]
    assert half.dtype == torch.float32


def test_state_dict_holds_parameters_alone() -> None:
    model = DiT(DiTConfig(32, 3, 4, 2, rope=True), Domain.of(SHAPE), Classes(CLASSES))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unconditional_data_has_the_null_class_alone() -> None:
    model = trained(DiT(DiTConfig(32, 2, 4, 2), Domain.of(SHAPE), Classes(0)))
    x, t, _ = batch()
    torch.testing.assert_close(model(x, t), model(x, t, labelled(torch.zeros(3, dtype=torch.int64))))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=str)
@pytest.mark.parametrize("whole", [False, True], ids=["block.compile()", "model.compile()"])
def test_compiled_equals_eager(options: dict, whole: bool) -> None:
    model = trained(DiT(DiTConfig(32, 3, 4, 2, **options), Domain.of(SHAPE), Classes(CLASSES)))
    compiled = copy.deepcopy(model)
    for module in [compiled] if whole else compiled.blocks:
        module.compile()
    assert set(compiled.state_dict()) == set(model.state_dict())
    x, t, y = batch()
    outs = [network(x, t, y) for network in (model, compiled)]
    torch.testing.assert_close(outs[1], outs[0], atol=1e-4, rtol=1e-4)
    for out in outs:
        out.square().sum().backward()
    for (name, one), two in zip(model.named_parameters(), compiled.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_one_channel_in_and_out() -> None:
    model = trained(DiT(DiTConfig(32, 1, 4, 2), Domain(1, (8, 8)), Classes(0)))
    x, t, _ = batch(shape=(1, 8, 8))
    assert model(x, t, None).shape == x.shape
