"""Named columns: captions of every container, their encoders, and directories that say something else of them."""

import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from dit.condition import Classes, Nothing, Several, Text, find
from dit.data.autoencoder import Identity
from dit.data.conditions.base import Conditions, open_encoder
from dit.data.conditions.byte_encoder import Bytes
from dit.data.conditions.transformer_encoder import Transformer
from dit.data.encode import encode_dataset
from dit.data.images import Digits
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest
from dit.data.sources.folder import Folder, Zip
from dit.data.sources.parquet import Parquet
from dit.data.sources.webdataset import Tar
from dit.data.split import ByContent
from dit.errors import InputError

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"
CAPTIONS = {f"{kind}/{n}": f"{kind} number {n}, ü" for kind in ("bee", "cat") for n in range(8)}
SPLIT = ByContent(0.3)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = {name: png(seed) for seed, name in enumerate(CAPTIONS)}


def files(captions: dict[str, str] = CAPTIONS) -> dict[str, bytes]:
    texts = {f"{name}.txt": f" {text}\n".encode() for name, text in captions.items()}
    return texts | {f"{name}.png": content for name, content in IMAGES.items()}


def folder(root: Path, **options) -> Folder:
    for name, content in files(**options).items():
        (root / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "f" / name).write_bytes(content)
    return Folder(str(root / "f"))


def zipped(root: Path, **options) -> Zip:
    with zipfile.ZipFile(root / "x.zip", "w") as file:
        for name, content in files(**options).items():
            file.writestr(f"outer/{name}", content)
    return Zip(str(root / "x.zip"))


def tar(root: Path, **options) -> Tar:
    """Without labels, as picture and text pairs of the web are."""
    with tarfile.open(root / "x.tar", "w") as made:
        for name, content in files(**options).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return Tar(str(root / "x.tar"))


def parquet(root: Path, captions: dict[str, str] = CAPTIONS) -> Parquet:
    images = [{"bytes": content} for content in IMAGES.values()]
    table = pa.table({"image": images, "caption": [captions.get(name) for name in IMAGES]})
    pq.write_table(table, root / "x.parquet", row_group_size=5)
    return Parquet(str(root / "x.parquet"), label_column=None, caption_column="caption")


MAKERS = [folder, zipped, tar, parquet]


def encode(directory: Path, source, condition: Conditions, **options) -> Path:
    options = {"name": "x", "image_size": 8, "shard_images": 5} | options
    encode_dataset(directory, source, Identity(), SPLIT, condition=condition, **options)
    return directory


@pytest.mark.parametrize("make", MAKERS)
def test_each_image_has_its_own_caption(make, tmp_path):
    """Through shards of five, in batches of three: what is read for an image is its caption, encoded alone."""
    source, encoder = make(tmp_path), Bytes(24)
    directory = encode(tmp_path / "latents", source, Conditions(False, encoder), batch_size=3)
    assert [text for text in source.captions()] == list(CAPTIONS.values())
    seen = 0
    for split in ("train", "validation"):
        latents = LatentSet(directory, split)
        assert latents.kind == Text(24, 32)
        told = latents.condition(torch.arange(len(latents)).flip(0))
        texts = [source.captions()[index] for index in latents.source_index.flip(0)]
        for name, tensor in encoder.encode(texts).items():
            assert told[name].dtype == tensor.dtype and torch.equal(told[name], tensor)
        seen += len(latents)
    assert seen == len(IMAGES)


@pytest.mark.parametrize("make", MAKERS)
def test_missing_captions_are_one_message(make, tmp_path):
    few = {name: text for name, text in CAPTIONS.items() if name not in ("bee/2", "cat/1")} | {"cat/3": " "}
    with pytest.raises(
        InputError, match=r"^condition: got \(3 of 16 items without a caption: .*allowed: a caption of each"
    ):
        encode(tmp_path / "latents", make(tmp_path, captions=few), Conditions(False, Bytes()))
    assert not list(tmp_path.glob("latents*"))


def test_what_else_is_wrong_with_captions_is_said(tmp_path):
    source = folder(tmp_path)
    (tmp_path / "f" / "bee" / "3.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"bee/3\.txt: .*UTF-8"):
        source.captions()
    parquet(tmp_path)
    for column, message in ((None, "the name of a column"), ("text", "a column of"), ("image", "of texts")):
        with pytest.raises(InputError, match=rf"data\.source\.caption_column: .*{message}"):
            Parquet(str(tmp_path / "x.parquet"), label_column=None, caption_column=column).captions()

    class Silent:
        def identity(self):
            return {"kind": "silent"}

    with pytest.raises(InputError, match=r"condition: .*of silent data.*label: these data have no captions"):
        encode_dataset(tmp_path / "x", Silent(), Identity(), SPLIT, name="x", image_size=8,
                       condition=Conditions(False, Bytes()))  # fmt: skip


def test_changed_captions_are_another_encoding(tmp_path):
    condition = Conditions(False, Bytes())
    encode(tmp_path / "latents", folder(tmp_path), condition)
    encode(tmp_path / "latents", folder(tmp_path), condition)
    with pytest.raises(InputError, match=r"encoded another way: .*texts: "):
        encode(tmp_path / "latents", folder(tmp_path, captions=CAPTIONS | {"cat/1": "a dog"}), condition)
    with pytest.raises(InputError, match=r"encoded another way: .*condition: "):
        encode(tmp_path / "latents", folder(tmp_path), Conditions())


def test_labels_alone_leave_no_trace(tmp_path):
    """The manifest of before, which hashes of runs are made of; see tests/test_old_files.py for older ones."""
    directory = encode(tmp_path / "latents", folder(tmp_path), Conditions())
    manifest, latents = read_manifest(directory), LatentSet(directory, "train")
    assert not {"columns"} & set(manifest) and not {"condition", "texts"} & set(manifest["config"])
    assert latents.kind == Classes(2) and list(latents.condition(torch.tensor([0]))) == ["label"]
    with safe_open(directory / "train-00000.safetensors", "pt") as file:
        assert set(file.keys()) == {"moments", "label", "index"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("told") / "latents"
    return encode(directory, Digits(), Conditions(True, Bytes(12)), shard_images=600)


def test_class_and_text_at_once(digits):
    latents = LatentSet(digits, "validation")
    assert isinstance(latents.kind, Several) and find(latents.kind, Text) == Text(12, 32)
    told = latents.condition(torch.arange(len(latents)))
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    texts = [f"{'an' if label == 8 else 'a'} {names[label]}" for label in told["label"]]
    assert torch.equal(told["text"], Bytes(12).encode(texts)["text"])
    assert told["text_mask"].sum(1).tolist() == [len(text) for text in texts]


@pytest.mark.parametrize("policy", ["balanced", "random"])
def test_conditions_to_sample_by_are_those_of_held_out_samples(digits, policy):
    """Of each sample all that goes together; those of a smaller number are their first, another seed has others."""
    latents = LatentSet(digits, "validation")
    drawn, known = latents.drawn(policy, 3, 400), latents.condition(torch.arange(len(latents)))
    pairs = {(int(label), bytes(text.numpy())) for label, text in zip(known["label"], known["text"])}
    assert all(
        (int(label), bytes(text.numpy())) in pairs for label, text in zip(drawn["label"], drawn["text"])
    )
    assert torch.equal(latents.drawn(policy, 3, 50)["text"], drawn["text"][:50])
    assert torch.equal(latents.drawn(policy, 4, 400)["label"], drawn["label"]) == (policy == "balanced")


def test_nothing_at_all(tmp_path):
    latents = LatentSet(encode(tmp_path / "latents", Digits(), Conditions(False), shard_images=600), "train")
    assert latents.kind == Nothing() and not latents.condition(torch.arange(2))
    assert not latents.drawn("balanced", 0, 3)


BAD = [
    {"label": {"dtype": "int64", "shape": [3]}}, {"label": {"dtype": "int32", "shape": []}}, {"label": None}, [],
    {"text": {"dtype": "float16", "shape": [12, 32]}}, {"control": {"dtype": "float32", "shape": [3]}},
    {"text": {"dtype": "float16", "shape": [12, 32]}, "text_mask": {"dtype": "bool", "shape": [11]}},
    {"text": {"dtype": "float16", "shape": [12, 0]}, "text_mask": {"dtype": "bool", "shape": [12]}},
    {"text": {"dtype": "float64", "shape": [12, 32]}, "text_mask": {"dtype": "bool", "shape": [12]}},
    {"text_mask": {"dtype": "bool", "shape": [12]}}, {"pooled": {"dtype": "float16", "shape": [12]}},
]  # fmt: skip


def rewrite(source: Path, directory: Path, columns: object) -> Path:
    """The files of a directory under a manifest of other columns whose hash fits."""
    directory.mkdir()
    for path in source.glob("*.safetensors"):
        os.link(path, directory / path.name)
    text = json.dumps(read_manifest(source) | {"columns": columns}).encode()
    (directory / "manifest.json").write_bytes(text)
    (directory / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
    return directory


@pytest.mark.parametrize("columns", BAD, ids=lambda value: str(value)[:40])
def test_columns_that_cannot_be_are_refused(digits, tmp_path, columns):
    with pytest.raises(InputError, match=r"manifest\.json: columns"):
        read_manifest(rewrite(digits, tmp_path / "x", columns))


def test_columns_that_shards_do_not_hold_are_refused(digits, tmp_path):
    columns = read_manifest(digits)["columns"]
    wide = {"dtype": "float16", "shape": [12, 64]}
    with pytest.raises(
        InputError, match=r"text F16 \(\d+, 12, 32\).*allowed: F16 \(\d+, 12, 64\), as in manifest\.json"
    ):
        LatentSet(rewrite(digits, tmp_path / "x", columns | {"text": wide}), "train")
    pooled = {"dtype": "float32", "shape": [7]}
    with pytest.raises(InputError, match=r"pooled None None"):
        LatentSet(rewrite(digits, tmp_path / "y", columns | {"pooled": pooled}), "train")


def test_bytes_are_told_from_each_other_and_from_their_places():
    """Of a text each byte's bits, most significant first, between those of its neighbours; cut where it is too long."""
    told = Bytes(4).encode(["ab", "", "abcdef", "é"])
    bits = {c: [2 * int(bit) - 1 for bit in f"{ord(c):08b}"] for c in "ab"}
    assert told["text"][0, 0, :24].tolist() == [*bits["a"], *[0] * 8, *bits["b"]]
    assert told["text"][0, 1, :24].tolist() == [*bits["b"], *bits["a"], *[0] * 8]
    assert told["text_mask"].sum(1).tolist() == [2, 0, 4, 2] and not told["text"][1].any()
    places = torch.arange(4)[:, None] / 4 ** torch.arange(4)
    torch.testing.assert_close(told["text"][2, :, 24:], torch.cat([places.sin(), places.cos()], 1).half())
    rows = {bytes(row.numpy()) for row in Bytes(64).encode(["a" * 64])["text"][0]}
    assert len(rows) == 64


def test_a_text_encoder_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(InputError, match=r"condition\.spec\.text\.path: .*a directory with config\.json"):
        encode(
            tmp_path / "latents", folder(tmp_path), Conditions(False, Transformer(str(tmp_path / "no"), 8))
        )
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(InputError, match=r"condition\.spec\.text\.path: .*the width of a token"):
        _ = Transformer(str(tmp_path), 8).kind


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<end>",
        "<unk>",
        *sorted({word for text in CAPTIONS.values() for word in text.split()}),
    ]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    """A CLIP and a T5 of random weights, as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 32, "eos_token_id": 1, "max_position_embeddings": 8}
    seen = sizes | {"image_size": 8, "patch_size": 4}
    clip = transformers.CLIPConfig(text_config=text, vision_config=seen, projection_dim=8)
    t5 = transformers.T5Config(
        vocab_size=32, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    found = {}
    for name, model in (("clip", transformers.CLIPModel(clip)), ("t5", transformers.T5EncoderModel(t5))):
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        tokenizer().save_pretrained(found[name])
    return found


@pytest.mark.parametrize(("name", "width", "pooled"), [("clip", 16, True), ("t5", 12, False)])
def test_encoders_of_transformers(encoders, tmp_path, name, width, pooled):
    """Each text alone, without padding, as the library itself encodes it; in shards, and again for a prompt."""
    import transformers

    condition = Conditions(False, Transformer(str(encoders[name]), 6, pooled))
    directory = encode(tmp_path / "latents", folder(tmp_path), condition)
    latents = LatentSet(directory, "train")
    assert latents.kind == Text(6, width, width if pooled else 0)
    model = {"clip": transformers.CLIPTextModel, "t5": transformers.T5EncoderModel}[name]
    model = model.from_pretrained(encoders[name])
    text = list(CAPTIONS.values())[int(latents.source_index[2])]
    tokens = tokenizer()([text], return_tensors="pt")["input_ids"]
    told, expected = latents.condition(torch.tensor([2])), model(input_ids=tokens)
    n = tokens.shape[1]
    assert told["text_mask"].tolist() == [[True] * n + [False] * (6 - n)]
    torch.testing.assert_close(
        told["text"][0, :n].float(), expected.last_hidden_state[0], atol=2e-3, rtol=2e-3
    )
    if pooled:
        torch.testing.assert_close(told["pooled"].float(), expected.pooler_output, atol=2e-3, rtol=2e-3)
    again = open_encoder(condition, str(directory), latents.manifest["config"])([text])
    assert all(torch.equal(again[key], told[key]) for key in told)
    if name == "t5":
        with pytest.raises(InputError, match=r"condition\.spec\.text\.pooled: .*false"):
            Transformer(str(encoders[name]), 6, True).open("cpu")(["x"])
    (encoders[name] / "added.json").write_text("{}")
    moved = Conditions(False, Transformer(str(encoders[name]), 6, pooled))
    with pytest.raises(InputError, match=r"condition\.spec\.text\.path: .*the very encoder"):
        open_encoder(moved, str(directory), latents.manifest["config"])


def test_the_example_of_the_documentation(tmp_path):
    """docs/adding.md: its encoder's texts are columns, a word that is not known is a token of zeros."""
    text = ADDING.read_text().split("## A condition")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    found: dict = {"__name__": "words"}
    exec(code, found)
    condition = Conditions(False, found["Words"](("a", "seven"), 3))
    latents = LatentSet(encode(tmp_path / "latents", Digits(), condition, shard_images=600), "train")
    assert latents.kind == Text(3, 2)
    first = [int((latents.labels == digit).nonzero()[0]) for digit in (7, 2)]
    told = latents.condition(torch.tensor(first))
    assert told["text"].tolist() == [[[1, 0], [0, 1], [0, 0]], [[1, 0], [0, 0], [0, 0]]]
    assert told["text_mask"].tolist() == [[True, True, False]] * 2
