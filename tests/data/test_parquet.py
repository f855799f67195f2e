"""Parquet files as the Hub and others write them: columns of images, what labels mean, which split it is."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dit.data.images import UnreadableImage
from dit.data.sources import parquet
from dit.data.sources.parquet import Parquet
from dit.errors import InputError
from tests.data.test_sources import jpeg

IMAGES = [jpeg(seed) for seed in range(6)]
STRUCTS = [{"bytes": image, "path": "x.jpg"} for image in IMAGES]


def write(path: Path, columns: dict, metadata: object = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if metadata is not None:
        text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        table = table.replace_schema_metadata({b"huggingface": text})
    pq.write_table(table, path, **options)
    return path


def read(path: Path, **options) -> tuple[list[str], list[bytes]]:
    """The class and the content of every image."""
    source = Parquet(str(path), **options)
    places = range(len(source))
    return [source.class_names[source.label(i)] for i in places], [source.content(i) for i in places]


WORDS = ["dog", "cat", "dog", "eel", "cat", "dog"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_labels_are_classes_in_alphabetical_order(kind, tmp_path):
    path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": pa.array(WORDS).cast(kind)})
    source = Parquet(str(path))
    assert source.class_names == ("cat", "dog", "eel")
    assert [source.label(i) for i in range(6)] == [1, 0, 1, 2, 0, 1]


def test_text_labels_of_several_files_are_one_list_of_classes(tmp_path):
    for name, part in (("a", slice(0, 3)), ("b", slice(3, 6))):  # dog, cat; eel, cat, dog
        write(tmp_path / f"{name}.parquet", {"image": STRUCTS[part], "label": WORDS[part]})
    assert read(tmp_path) == (WORDS, IMAGES)


def test_boolean_and_dictionary_of_integer_labels(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": [True, True, True, False, True, True]})
    assert read(path)[0] == ["true", "true", "true", "false", "true", "true"]
    path = write(tmp_path / "b.parquet", {"image": STRUCTS, "label": [True] * 6})
    assert Parquet(str(path)).class_names == ("false", "true")  # 1 is true wherever it stands alone
    numbers = pa.array([2, 0, 2, 2, 0, 5]).dictionary_encode()
    path = write(tmp_path / "c.parquet", {"image": STRUCTS, "label": numbers})
    source = Parquet(str(path))
    assert [source.label(i) for i in range(6)] == [2, 0, 2, 2, 0, 5] and len(source.class_names) == 6


@pytest.mark.parametrize("labels", [["cat", None], [None, None], [1, None]])
def test_missing_labels_are_refused(labels, tmp_path):
    kind = pa.int64() if 1 in labels else pa.string()
    write(tmp_path / "a.parquet", {"image": STRUCTS[:2], "label": pa.array(labels, kind)})
    with pytest.raises(InputError, match=r"a\.parquet: label: nothing was given"):
        len(Parquet(str(tmp_path)))


def test_labels_of_two_kinds_are_refused(tmp_path):
    write(tmp_path / "a.parquet", {"image": STRUCTS[:2], "label": [0, 1]})
    write(tmp_path / "b.parquet", {"image": STRUCTS[:2], "label": ["0", "1"]})
    with pytest.raises(InputError, match="int and str in different files"):
        len(Parquet(str(tmp_path)))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_binary_images(kind, tmp_path):
    path = write(
        tmp_path / "a.parquet", {"picture": pa.array(IMAGES, kind), "label": WORDS}, row_group_size=4
    )
    assert read(path) == (WORDS, IMAGES)


def test_image_column_chooses_among_several(tmp_path):
    other = STRUCTS[::-1]
    columns = {"image": STRUCTS, "mask": other, "raw": [b"x"] * 6, "label": WORDS}
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=r"Choose one of image, mask, raw: \+data\.source\.image_column="):
        len(Parquet(str(path)))
    assert read(path, image_column="image") == (WORDS, IMAGES)
    assert read(path, image_column="mask") == (WORDS, IMAGES[::-1])
    assert read(path, image_column="raw") == (WORDS, [b"x"] * 6)
    for name in ("gone", "label"):
        with pytest.raises(InputError, match=rf"image_column: got '{name}'.*image, mask, raw"):
            len(Parquet(str(path), image_column=name))
    path = write(tmp_path / "b.parquet", {"image": STRUCTS, "checksum": [b"x"] * 6, "label": WORDS})
    assert read(path) == (WORDS, IMAGES)  # the Hub's layout, beside which binary columns are something else


def test_nested_and_odd_column_names(tmp_path):
    columns = {"sample": [{"image": one, "class": word} for one, word in zip(STRUCTS, WORDS)]}
    path = write(tmp_path / "a.parquet", columns)
    assert read(path, label_column="sample.class") == (WORDS, IMAGES)
    assert read(path, label_column="sample.class", image_column="sample.image") == (WORDS, IMAGES)
    for image, label in (("ein Bild", "Größe"), ("image.jpg", "a.b"), ("it's", 'a,"b"')):
        path = write(tmp_path / "b.parquet", {image: IMAGES, "x": IMAGES[::-1], label: WORDS})
        assert read(path, label_column=label, image_column=image) == (WORDS, IMAGES)


def test_an_image_that_is_null_is_one_unreadable_image(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        {"image": [STRUCTS[0], None, {"bytes": None, "path": "x"}], "label": [0, 0, 0]},
    )
    source = Parquet(str(path))
    assert source.content(0) == IMAGES[0]
    for index in (1, 2):
        with pytest.raises(UnreadableImage, match="no bytes stored"):
            source.content(index)


def test_several_splits_are_refused_by_name(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(tmp_path / "data" / f"{name}.parquet", {"image": STRUCTS, "label": WORDS})
    for path in (tmp_path, tmp_path / "data", tmp_path / "data" / "*.parquet"):
        with pytest.raises(
            InputError, match=r"several splits: test \(.*\), train \(.*train-\*-of-\*\.parquet"
        ):
            len(Parquet(str(path)))
    assert len(Parquet(str(tmp_path / "data" / "train-*.parquet"))) == 12
    assert len(Parquet(str(tmp_path / "**" / "train-*.parquet"))) == 12


def test_splits_by_folder_are_refused(tmp_path):
    """As the Hub's own conversion lays them out: default/train/0000.parquet."""
    for split in ("train", "validation"):
        write(tmp_path / "default" / split / "0000.parquet", {"image": STRUCTS, "label": WORDS})
    with pytest.raises(InputError, match="several splits"):
        len(Parquet(str(tmp_path)))
    assert len(Parquet(str(tmp_path / "default" / "train"))) == 6


def test_hidden_files_beside(tmp_path):
    write(tmp_path / "a.parquet", {"image": STRUCTS, "label": WORDS})
    for name in ("._a.parquet", ".a.parquet"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    assert len(Parquet(str(tmp_path))) == 6
    assert len(Parquet(str(tmp_path / "*a.parquet"))) == 6


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b"\xff", b"null", {"info": None}, {"info": {"features": []}}, {"info": {"features": {"label": 3}}},
     {"info": {"features": {"label": {"names": "cat"}}}}, {"info": {"features": {"label": {"names": [1, 2]}}}},
     b"[" * 100_000],
)  # fmt: skip
def test_broken_hub_metadata(metadata, tmp_path, caplog):
    path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": [0, 1, 0, 1, 1, 1]}, metadata)
    assert Parquet(str(path)).class_names == ("0", "1")
    assert "classes are named by number" in caplog.text


def test_hub_metadata_without_names_is_no_fault(tmp_path, caplog):
    for metadata in ({}, {"info": {"features": {"label": {"dtype": "int64", "_type": "Value"}}}}):
        path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": [0, 1, 0, 1, 1, 1]}, metadata)
        assert Parquet(str(path)).class_names == ("0", "1")
    assert not caplog.text


def test_a_row_group_is_never_one_array(tmp_path, monkeypatch):
    """Arrow makes no one array of nested bytes of 2 GiB and more: "Nested data conversions not implemented for chunked
    array outputs" (tried once with a group of 2.3 GiB, which takes a minute).
    """
    path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": WORDS}, row_group_size=5)

    def read_row_group(*_, **__):
        raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 2)
    assert read(path) == (WORDS, IMAGES)


def test_a_damaged_row_group_is_unreadable_images(tmp_path):
    path = write(
        tmp_path / "a.parquet", {"image": STRUCTS, "label": [0] * 6}, compression="none", row_group_size=3
    )
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    place = column.dictionary_page_offset or column.data_page_offset  # where the header of the first page is
    data[place : place + 16] = b"\xff" * 16
    path.write_bytes(data)
    source = Parquet(str(path))
    assert source.content(0) == IMAGES[0]
    with pytest.raises(UnreadableImage, match=r"a\.parquet, row group 1"):
        source.content(4)


class Footer:
    """What pyarrow says of a file whose footer lies."""

    num_row_groups = 1

    def __init__(self, rows: int, total: int) -> None:
        self.num_rows, self.group = total, type("Group", (), {"num_rows": rows})()

    def row_group(self, number: int) -> object:
        return self.group


@pytest.mark.parametrize(("rows", "total"), [(2**60, 2**60), (-1, -1), (6, 7)])
def test_a_footer_that_promises_more_than_the_file_holds(rows, total, tmp_path):
    path = write(tmp_path / "a.parquet", {"image": STRUCTS, "label": WORDS})
    with pytest.raises(InputError, match="a footer that agrees with its file"):
        parquet._check_rows(path, Footer(rows, total))
