"""Networks that attend to texts: their counts, masks, null condition, initial values, muP and compiled blocks."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, Condition, Several, Text
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.counting import activation_bytes
from dit.network.dit import DiT
from dit.network.export import load_safetensors, save_safetensors

DOMAIN = Domain(3, (8, 12))
TEXT = Text(7, 10)
KINDS = [TEXT, Text(7, 10, 5), Several((Classes(4), Text(7, 10, 5)))]
ATTENDING = ["cross_attention", "adaln_zero_cross_attention"]


def config(conditioning: str = ATTENDING[1], **options) -> DiTConfig:
    return DiTConfig(32, 3, 2, 2, conditioning=conditioning, **options)


def told(kind, n: int, seed: int = 0) -> Condition:
    """Random texts of 1, 2, 3, ... tokens."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, null in kind.null(n).items():
        found[name] = torch.randn(null.shape, generator=g).to(null.dtype)
    found["text_mask"] = torch.arange(7) < torch.arange(1, n + 1)[:, None]
    if "label" in found:
        found["label"] = torch.arange(n) % 4
    return Condition(found)


def trained(network: DiT) -> DiT:
    """Moved away from its silent start."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return network


@pytest.mark.parametrize("conditioning", ATTENDING)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "norm": "rms", "rope": True}], ids=str)
def test_counts_are_those_of_torch(conditioning, kind, options):
    made = config(conditioning, **options)
    counts, network = made.count(DOMAIN, kind), made.build(DOMAIN, kind)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert counts.n_params_total == sum(sizes.values())
    for group, names in (
        ("text_embedding", ("text_embedder", "pooled")),
        ("cross_attention", ("cross_attn",)),
    ):
        of_group = sum(size for name, size in sizes.items() if any(part in name for part in names))
        assert counts.n_params_by_group[group] == of_group
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *DOMAIN.shape), torch.zeros(1), told(kind, 1))
    assert counter.get_total_flops() == 2 * counts.macs_per_image


def test_what_autograd_keeps_of_texts():
    """A long text, whose tokens outnumber those of the picture."""
    kind, made = Text(96, 10), DiTConfig(128, 3, 4, 2, conditioning=ATTENDING[1])
    network, saved = made.build(DOMAIN, kind), {}
    own = {t.untyped_storage().data_ptr() for t in [*network.parameters(), *network.buffers()]}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(torch.randn(2, *DOMAIN.shape), torch.rand(2), Condition({
            "text": torch.randn(2, 96, 10), "text_mask": torch.ones(2, 96, dtype=torch.bool)}))  # fmt: skip
    assert out.requires_grad
    assert activation_bytes(made, DOMAIN, kind, 2) == pytest.approx(sum(saved.values()), rel=0.05)


@pytest.mark.parametrize("conditioning", ATTENDING)
def test_tokens_that_are_not_there_say_nothing(conditioning):
    """Whatever stands behind the mask; and each sample is answered as it is alone, in a text of its own length."""
    network = trained(config(conditioning).build(DOMAIN, TEXT))
    x, t, text = torch.randn(3, *DOMAIN.shape), torch.rand(3) * 1000, told(TEXT, 3)
    with torch.no_grad():
        out = network(x, t, text)
        noise = torch.where(text["text_mask"][:, :, None], text["text"], 100 * torch.randn(3, 7, 10).half())
        assert torch.equal(network(x, t, Condition({**text, "text": noise})), out)
        short = Condition({"text": text["text"][1:2, :2], "text_mask": text["text_mask"][1:2, :2]})
        torch.testing.assert_close(network(x[1:2], t[1:2], short), out[1:2], atol=1e-5, rtol=1e-5)
        other = text["text"].clone()
        other[0, 0] += 1
        assert not torch.allclose(network(x, t, Condition({**text, "text": other}))[0], out[0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_said_is_the_null_condition(kind):
    network = trained(config().build(DOMAIN, kind))
    x, t = torch.randn(2, *DOMAIN.shape), torch.rand(2) * 1000
    with torch.no_grad():
        out = network(x, t)
        assert out.isfinite().all() and torch.equal(out, network(x, t, kind.null(2)))
        assert not torch.allclose(out, network(x, t, told(kind, 2)), atol=1e-4)


def test_at_the_start_texts_are_silent_and_each_part_of_them_learns():
    """As the rest of adaLN-Zero: the answer is 0. What shows texts gets a gradient once the output is not."""
    network = config().build(DOMAIN, KINDS[2])
    x, t = torch.randn(4, *DOMAIN.shape), torch.rand(4) * 1000
    assert not network(x, t, told(KINDS[2], 4)).any()
    assert not any(block.cross_attn.proj.weight.any() for block in network.blocks)
    trained(network)(x, t, told(KINDS[2], 4)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_mup_learns_maps_of_a_fixed_number_of_inputs_at_the_base_rate():
    """2203.03466 table 3: input weights keep their rate, hidden ones have 288 / width of it."""
    wide = DiTConfig(576, 1, 8, 2, conditioning=ATTENDING[1], parametrization="mup")
    with torch.device("meta"):
        rates = {n: wide.lr_multiplier(n, p) for n, p in wide.build(DOMAIN, KINDS[1]).named_parameters()}
    assert {name: rate for name, rate in rates.items() if name.startswith(("text_embedder", "pooled"))} == {
        "text_embedder.null": 1,
        "text_embedder.fc1.weight": 1,
        "text_embedder.fc1.bias": 1,
        "text_embedder.fc2.weight": 0.5,
        "text_embedder.fc2.bias": 1,
        "pooled_embedder.weight": 1,
        "pooled_embedder.bias": 1,
    }
    assert rates["blocks.0.cross_attn.kv.weight"] == 0.5


def test_text_tokens_are_as_large_at_every_width_of_mup():
    scales = []
    for width in (144, 576):
        made = DiTConfig(width, 1, 4, 2, conditioning=ATTENDING[1], parametrization="mup")
        network = made.build(DOMAIN, TEXT, seed=3)
        scales.append(
            network.text_embedder(told(TEXT, 3)["text"], told(TEXT, 3)["text_mask"])[0][:, 1:].std().item()
        )
    assert scales[1] == pytest.approx(scales[0], rel=0.1)


@pytest.mark.parametrize("conditioning", ["adaln_zero", "adaln", "in_context"])
def test_texts_need_a_network_that_attends(conditioning):
    message = r"network\.conditioning: got '\w+'; allowed: cross_attention or adaln_zero_cross_attention"
    for make in (config(conditioning).build, config(conditioning).count):
        with pytest.raises(InputError, match=message):
            make(DOMAIN, TEXT)


def test_an_export_knows_its_texts(tmp_path):
    network = trained(config().build(DOMAIN, KINDS[2]))
    save_safetensors(network, tmp_path / "x.safetensors")
    loaded = load_safetensors(tmp_path / "x.safetensors")
    x, t, text = torch.randn(2, *DOMAIN.shape), torch.rand(2) * 1000, told(KINDS[2], 2)
    assert loaded.kind == network.kind and torch.equal(loaded(x, t, text), network(x, t, text))


def test_compiled_blocks_answer_alike_with_and_without_texts():
    """One graph per block serves every mask, and recomputing them moves no gradient."""
    from dit.launch import World
    from dit.training.hardware import Hardware
    from dit.training.strategy import Strategy

    plain, compiled = (trained(config().build(DOMAIN, TEXT)) for _ in range(2))
    Strategy(compile="block").prepare(compiled, "single", World(), Hardware(device="cpu"))
    x, t = torch.randn(4, *DOMAIN.shape), torch.rand(4) * 1000
    for text in (told(TEXT, 4), TEXT.null(4)):
        grads = []
        for network in (plain, compiled):
            network.zero_grad()
            network(x, t, text).square().sum().backward()
            grads.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-4 * float(grads[0].abs().max()))
