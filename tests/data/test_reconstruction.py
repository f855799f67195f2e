"""The small autoencoder's training and its reconstruction, by diffusers' own model and the textbook's formulas."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch.distributions import Normal, kl_divergence

from dit.data.autoencoder_training import build_kl, rate_share, train_kl
from dit.data.blocks import PSNR_IMAGES, check_bad
from dit.data.images import Digits
from dit.data.manifest import doubts, read_manifest
from dit.errors import InputError
from tests.data.conftest import TINY_KL


def digits(index, size=16):
    source = Digits()
    return torch.stack(
        [torch.from_numpy(source.pixels(source.content(i), size)).permute(2, 0, 1) for i in index]
    )


def test_the_stated_psnr_is_that_of_the_stored_latents(tiny):
    """10 log10(255^2 / mean square of the difference), of all 297 held-out digits decoded from their means."""
    manifest = read_manifest(tiny)
    model = AutoencoderKL.from_pretrained(tiny / "autoencoder")
    squared = elements = 0
    for entry in manifest["splits"]["validation"]["shards"]:
        stored = load_file(tiny / entry["file"])
        with torch.no_grad():
            decoded = model.decode(stored["moments"][:, :2].float()).sample
        pixels = (127.5 * decoded + 128).clamp(0, 255).to(torch.uint8)
        real = digits(stored["index"].tolist())
        squared += ((pixels.double() - real.double()) ** 2).sum().item()
        elements += real.numel()
    said = manifest["autoencoder"]
    assert said["reconstruction_psnr_db"] == pytest.approx(
        10 * np.log10(255**2 * elements / squared), abs=2e-3
    )
    assert PSNR_IMAGES == 512 and 297 in said.values()


def test_training_is_adams_on_the_evidence_bound():
    """Mean squares, and the divergence from the unit normal of Kingma & Welling (1312.6114), appendix B."""
    spec = dataclasses.replace(TINY_KL, kl_weight=0.5, steps=3)
    data, said = digits(range(12)), []
    trained = train_kl(spec, lambda: iter(data.split(1)), lambda *report: said.append(report[:3]))
    torch.manual_seed(spec.seed)
    model, generator = build_kl(spec, 16), torch.Generator().manual_seed(spec.seed)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(3):
        optimizer.param_groups[0]["lr"] = spec.learning_rate * rate_share(step, 3)
        x = data[torch.randint(12, (4,), generator=generator)].float() / 127.5 - 1
        posterior = model.encode(x).latent_dist
        z = Normal(posterior.mean, posterior.std)
        drawn = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        loss = (model.decode(drawn).sample - x).square().mean() + 0.5 * kl_divergence(
            z, Normal(0.0, 1.0)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pairs = zip(trained.parameters(), model.parameters())
    apart = torch.cat([(one - two).abs().flatten() for one, two in pairs])
    assert (
        apart.quantile(0.98) < 2e-6
    )  # a step is 6e-5 and more; where a slope is zero but for rounding, it is any
    assert said == [("autoencoder", 3, 3)] and not trained.training
    assert (model.config.scaling_factor, model.config.norm_num_groups, model.config.layers_per_block) == (
        1.0,
        8,
        1,
    )
    assert not model.config.mid_block_add_attention and model.config.sample_size == 16


def test_training_is_reported_every_25_steps():
    said = []
    spec = dataclasses.replace(TINY_KL, steps=26, batch_size=1)
    train_kl(spec, lambda: iter(digits(range(2), 8).split(1)), lambda *report: said.append(report[1]))
    assert said == [25, 26]


def test_twenty_unreadable_images_are_listed():
    bad = [{"name": f"image{i:02}", "why": "gone"} for i in range(21)]
    check_bad(bad, 21)
    for count, last, more in ((20, "image19", False), (21, "image19", True)):
        with pytest.raises(InputError) as caught:
            check_bad(bad[:count], count - 1)
        assert last in str(caught.value) and "image20" not in str(caught.value)
        assert ("; and 1 more" in str(caught.value)) == ("; and" in str(caught.value)) == more


def test_doubts_begin_at_500_held_out_images_and_list_ten_classes():
    def said(held_out, empty):
        names = [f"c{i:02}" for i in range(40)]
        return doubts({"splits": {"validation": {"count": held_out}}, "empty_classes": list(range(empty)),
                       "class_names": names, "num_classes": 40})  # fmt: skip

    assert said(500, 0) == [] and "499 images" in said(499, 0)[0]
    (ten,), (eleven,) = said(500, 10), said(500, 11)
    assert ten.endswith("c09") and eleven.endswith("c09, ...") and "11 of 40" in eleven
