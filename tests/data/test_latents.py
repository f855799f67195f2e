import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dit.condition import Classes
from dit.data.codec import Codec, to_uint8
from dit.data.draws import validation_draws
from dit.data.images import Digits
from dit.data.latents import LatentSet
from dit.data.manifest import manifest_hash, read_manifest, verify
from dit.errors import InputError

DIGITS = Digits()


def test_splits_hold_every_image_once_in_source_order(pixels):
    train, held_out = LatentSet(pixels, "train"), LatentSet(pixels, "validation")
    assert (len(train), len(held_out)) == (1500, 297)
    both = torch.cat([train.source_index, held_out.source_index])
    assert sorted(both.tolist()) == list(range(1797))
    assert torch.equal(train.source_index, train.source_index.sort().values)
    assert train.labels.tolist() == [DIGITS.label(i) for i in train.source_index.tolist()]
    assert train.kind == Classes(10) and train.shape == (3, 32, 32)


def test_pixels_come_back_exactly(pixels):
    train, codec = LatentSet(pixels, "train"), Codec.open(pixels)
    index = torch.tensor([0, 1499, 400, 400])
    decoded = codec.decode(train.draw(index))
    originals = [DIGITS.pixels(DIGITS.content(i), 32) for i in train.source_index[index].tolist()]
    difference = decoded.int() - torch.from_numpy(np.stack(originals)).permute(0, 3, 1, 2).int()
    # clamp(127.5 x + 128) of x = p / 127.5 - 1 is p + .5, truncated: p
    assert difference.abs().max() == 0


def test_latents_have_unit_variance_per_channel(tiny):
    train = LatentSet(tiny, "train")
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(len(train))
    flip = torch.rand(len(train), generator=generator) < 0.5
    latents = train.draw(index, torch.randn(len(train), *train.shape, generator=generator), flip)
    n = latents[:, 0].numel()
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 6 / n**0.5
    assert (latents.var(dim=(0, 2, 3)) - 1).abs().max() < 0.02


def test_draw_reads_the_stored_moments(tiny):
    """Against safetensors' own reader and the definition of a posterior draw."""
    train = LatentSet(tiny, "train")
    entries = train.manifest["splits"]["train"]["shards"]
    shards = [load_file(tiny / entry["file"]) for entry in entries]
    plain, mirrored = (torch.cat([s[k] for s in shards]).float() for k in ("moments", "moments_flipped"))
    assert shards[0]["moments"].dtype == torch.bfloat16
    index = torch.tensor([3, 1200, 0, 499])
    flip = torch.tensor([True, False, False, True])
    eps = torch.randn(4, *train.shape)
    stored = torch.where(flip[:, None, None, None], mirrored[index], plain[index])
    mean, logvar = stored.chunk(2, dim=1)
    std, centre = (torch.tensor(train.manifest[k])[:, None, None] for k in ("channel_std", "channel_mean"))
    expected = (mean + torch.exp(logvar / 2) * eps - centre) / std
    torch.testing.assert_close(train.draw(index, eps, flip), expected)
    torch.testing.assert_close(train.draw(index, None, flip), (mean - centre) / std)


def test_set_travels_to_other_processes(tiny):
    train = LatentSet(tiny, "train")
    index = torch.arange(10)
    before = train.draw(index)
    assert torch.equal(pickle.loads(pickle.dumps(train)).draw(index), before)


def test_flips_that_are_not_there_are_refused(pixels):
    train = LatentSet(pixels, "train")
    assert not train.has_flips
    with pytest.raises(InputError, match="flip"):
        train.draw(torch.tensor([0, 1]), None, torch.tensor([False, True]))
    with pytest.raises(IndexError):
        train.draw(torch.tensor([1500]))


def test_codec_round_trip(tiny):
    codec = Codec.open(tiny)
    latents = torch.randn(3, *LatentSet(tiny, "train").shape)
    torch.testing.assert_close(codec.normalise(codec.denormalise(latents)), latents)
    assert codec.decode(latents).shape == (3, 3, 16, 16)


def test_codec_encodes_as_the_directory_did(tiny):
    held_out, codec = LatentSet(tiny, "validation"), Codec.open(tiny)
    images = [DIGITS.pixels(DIGITS.content(i), 16) for i in held_out.source_index[:8].tolist()]
    encoded = codec.encode(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    torch.testing.assert_close(encoded, held_out.draw(torch.arange(8)), rtol=2**-7, atol=1e-2)  # bfloat16


def test_rounding_rule():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, float(np.float32(1 / 127.5))])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255, 129]
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.to(torch.uint8))


@pytest.fixture
def copy(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def open_everything(directory):
    LatentSet(directory, "train")
    LatentSet(directory, "validation")
    Codec.open(directory)


def test_any_flipped_byte_is_found(copy):
    generator = np.random.default_rng(0)
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    for _ in range(40):
        path = files[generator.integers(len(files))]
        data = path.read_bytes()
        place = int(generator.integers(len(data)))
        path.write_bytes(
            data[:place] + bytes([data[place] ^ (1 << generator.integers(8))]) + data[place + 1 :]
        )
        with pytest.raises(InputError):
            verify(copy)
        with pytest.raises(InputError):
            open_everything(copy)
        path.write_bytes(data)
    open_everything(copy)
    assert verify(copy) == len(files) - 2  # all but the manifest and its hash


def test_truncated_and_missing_shards_are_named(copy):
    path = next(copy.glob("train-*.safetensors"))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=rf"{path.name}.*dit encode"):
        LatentSet(copy, "train")
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name}.*no such file"):
        LatentSet(copy, "train")


def test_missing_directory_and_split_are_named(tmp_path, tiny):
    with pytest.raises(InputError, match="Run `dit encode` first"):
        LatentSet(tmp_path / "nothing", "train")
    with pytest.raises(InputError, match="split"):
        LatentSet(tiny, "test")


def test_manifest_hash_names_the_data(tiny, pixels):
    assert manifest_hash(tiny) == LatentSet(tiny, "train").manifest_hash != manifest_hash(pixels)
    manifest = read_manifest(tiny)
    assert manifest["source"]["kind"] == "digits"
    assert manifest["autoencoder"]["reconstruction_images"] == 297


def test_draws_are_stored_and_stratified(copy):
    held_out = LatentSet(copy, "validation")
    draws = validation_draws(held_out, 800, 8, seed=1)
    t = draws.t_linear.double()
    torch.testing.assert_close(draws.log_snr.double(), 2 * torch.log((1 - t) / t), rtol=1e-4, atol=1e-4)
    strata = ((t - 0.02) / 0.96 * 800).floor().long()
    assert sorted(strata.clamp(0, 799).tolist()) == list(range(800)) or len(set(strata.tolist())) > 780
    assert torch.bincount(draws.bin_id).tolist() == [100] * 8
    inside = (draws.edges[draws.bin_id] <= draws.log_snr + 1e-5) & (
        draws.log_snr <= draws.edges[draws.bin_id + 1] + 1e-5
    )
    assert bool(inside.all())
    counts = torch.bincount(draws.index, minlength=297)
    assert counts.min() >= 2 and counts.max() <= 3
    assert torch.equal(draws.labels, held_out.labels[draws.index])
    assert abs(torch.corrcoef(torch.stack([t, draws.eps.mean(dim=(1, 2, 3)).double()]))[0, 1]) < 0.2


def test_draws_are_the_same_when_read_again_and_remade_when_damaged(copy):
    held_out = LatentSet(copy, "validation")
    first = validation_draws(held_out, 64, 8)
    path = next(copy.glob("draws-*"))
    data = path.read_bytes()
    assert validation_draws(held_out, 64, 8).sha256 == first.sha256
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert validation_draws(held_out, 64, 8).sha256 == first.sha256
    assert validation_draws(held_out, 64, 8, seed=1).sha256 != first.sha256
    with pytest.raises(InputError, match="n_draws"):
        validation_draws(held_out, 4, 8)


def test_memory_stays_flat(pixels):
    """Reading every image many times over leaves nothing behind: rows are read, not mapped."""
    train = LatentSet(pixels, "train")

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def epoch() -> None:
        for start in range(0, 1500, 100):
            train.draw(torch.arange(start, start + 100))

    epoch()
    before = resident_mb()
    for _ in range(10):  # 46 MB of pixels, 180 MB of latents
        epoch()
    assert resident_mb() - before < 10


def test_whoever_may_read_a_plain_file_may_read_them_all(copy):
    """safetensors' own writer makes files that only their owner can read, no use on a cluster's shared disk."""
    validation_draws(LatentSet(copy, "validation"), 64, 8)
    (copy / "plain").write_text("")
    modes = {path.name: path.stat().st_mode for path in copy.rglob("*") if path.is_file()}
    assert set(modes.values()) == {modes["plain"]}
