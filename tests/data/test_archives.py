"""Folders, zip and tar files of every origin: they give the images and labels that they hold, or say why not."""

import io
import os
import socket
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest

from dit.data.images import UnreadableImage
from dit.data.sources.folder import Folder, Zip
from dit.data.sources.names import split_of
from dit.data.sources.webdataset import Tar
from dit.errors import InputError
from tests.data.test_sources import add, jpeg

A, B, C = jpeg(0), jpeg(1), jpeg(2)


def write_folder(root: Path, files: dict[str, bytes]) -> Folder:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Folder(str(root))


def write_zip(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Zip:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor would turn the separators of this system
            file.writestr(info, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16  # as Info-ZIP's zip -y writes them
            file.writestr(info, target)
    return Zip(str(path))


def write_tar(path: Path, files: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None) -> Tar:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return Tar(str(path))


def held(source) -> dict[str, tuple[str, bytes]]:
    """Name -> (class, content) of every image."""
    return {
        source.describe(i): (source.class_names[source.label(i)], source.content(i))
        for i in range(len(source))
    }


# -- names


def test_windows_separators_are_folders(tmp_path):
    """As .NET's older ZipFile writes them, and as a careless unpacking leaves them in file names."""
    files = {"pets\\cat\\1.jpg": A, "pets\\dog\\1.jpg": B, "pets\\dog\\": b""}
    expected = {"cat/1.jpg": ("cat", A), "dog/1.jpg": ("dog", B)}
    assert held(write_zip(tmp_path / "a.zip", files)) == expected
    assert held(write_folder(tmp_path / "a", {"cat\\1.jpg": A, "dog\\1.jpg": B})) == expected
    tar = write_tar(tmp_path / "a.tar", {"x\\1.jpg": A, "x\\1.cls": b"0", ".\\x\\2.jpg": B, "x\\2.cls": b"1"})
    assert held(tar) == {"a.tar/x/1": ("0", A), "a.tar/x/2": ("1", B)}


def test_hidden_files_of_other_systems_are_no_images(tmp_path):
    hidden = (
        "._1.jpg",
        "@eaDir/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "__MACOSX/cat/1.jpg",
        ".ipynb_checkpoints/1.png",
    )
    files = {"cat/1.jpg": A, "dog/1.jpg": B, "dog/Thumbs.db": b"x", ".DS_Store": b"x"}
    files |= {f"cat/{name}": b"junk" for name in hidden} | {"__MACOSX/cat/._1.jpg": b"junk"}
    expected = {"cat/1.jpg": ("cat", A), "dog/1.jpg": ("dog", B)}
    assert held(write_folder(tmp_path / "a", files)) == expected
    assert held(write_zip(tmp_path / "a.zip", files)) == expected
    files = {"1.jpg": A, "1.cls": b"0", "._1.jpg": b"junk", "._1.cls": b"junk", "__MACOSX/1.jpg": b"junk"}
    assert held(write_tar(tmp_path / "a.tar", files)) == {"a.tar/1": ("0", A)}


def test_hidden_containers_are_passed_over(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": A, "1.cls": b"0"})
    (tmp_path / "._a.tar").write_bytes(b"junk")
    for path in (tmp_path, tmp_path / "*.tar", tmp_path / "*a.tar"):
        assert len(Tar(str(path))) == 1


def test_names_that_are_no_utf8(tmp_path):
    """A folder unpacked on a Latin-1 system: listed, shown, encoded as JSON, and read."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xe9.jpg", "wb") as file:
        file.write(A)
    source = Folder(str(tmp_path))
    assert held(source) == {r"caf\xe9/\xe9.jpg": (r"caf\xe9", A)}
    assert source.identity()["count"] == 1 and source.stamp()
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "é.jpg", A)
        add(tar, "é.cls", b"0")
    tar = Tar(str(tmp_path / "a.tar"))
    assert held(tar) == {r"a.tar/\xe9": ("0", A)} and tar.identity()


def test_accents_in_two_forms_are_refused_and_in_one_are_one_name(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert held(write_folder(tmp_path / "one", {f"{apart}/1.jpg": A})) == {f"{composed}/1.jpg": (composed, A)}
    files = {f"{composed}/1.jpg": A, f"{apart}/2.jpg": B}
    for source in (write_folder(tmp_path / "two", files), write_zip(tmp_path / "two.zip", files)):
        with pytest.raises(InputError, match=r"2 folders named café.*Unicode"):
            len(source)


def test_classes_that_differ_by_case_are_two_and_said(tmp_path, caplog):
    source = write_folder(tmp_path, {"A/1.jpg": A, "a/1.jpg": B})  # letters, say
    assert source.class_names == ("A", "a")
    assert "only case tells them apart" in caplog.text


@pytest.mark.parametrize("name", ["a b", "ü", "a'b", 'a"b', "a,b", "a=b", "[a]", "{a}", "a#b", "100%", "*"])
def test_any_path(name, tmp_path):
    folder = write_folder(tmp_path / name / "x", {f"{name}/1.jpg": A, "other/1.jpg": B})
    assert held(folder) == {f"{name}/1.jpg": (name, A), "other/1.jpg": ("other", B)}
    write_tar(tmp_path / name / f"{name}.tar", {"1.jpg": A, "1.cls": b"0"})
    for path in (tmp_path / name, tmp_path / name / f"{name}.tar"):
        assert len(Tar(str(path))) == 1


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pets", {"cat/1.jpg": A})
    write_zip(tmp_path / "pets.zip", {"cat/1.jpg": A})
    write_tar(tmp_path / "pets.tar", {"1.jpg": A, "1.cls": b"0"})
    for source in (Folder("~/pets"), Zip("~/pets.zip"), Tar("~/pets.tar"), Tar("~/*.tar"), Tar("~")):
        assert source.content(0) == A


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("default/train/0000.parquet", "train"),
        ("imagenet-val-000012.tar", "validation"),
        ("plain_text/unsupervised-00000-of-00001.parquet", "unsupervised"),
        ("00000.tar", ""),
        ("trains-and-cars.parquet", ""),
    ],
)
def test_splits_of_names(name, split):
    assert split_of(name) == split


def test_splits_are_no_classes_and_no_one_set(tmp_path):
    files = {f"{split}/{name}/1.jpg": A for split in ("train", "val") for name in ("cat", "dog")}
    folder, archive = write_folder(tmp_path / "a", files), write_zip(tmp_path / "a.zip", files)
    for source in (folder, archive):
        with pytest.raises(InputError, match=r"train, val, which are splits.*data\.source\.path="):
            len(source)
    assert held(Folder(f"{folder.path}/train")).keys() == {"cat/1.jpg", "dog/1.jpg"}
    assert len(write_zip(tmp_path / "b.zip", {"train/cat/1.jpg": A, "train/dog/1.jpg": B})) == 2
    assert write_folder(tmp_path / "c", {"train/1.jpg": A, "bus/1.jpg": B}).class_names == ("bus", "train")
    (tmp_path / "tars").mkdir()
    for name in ("train-000.tar", "train-001.tar", "val-000.tar"):
        write_tar(tmp_path / "tars" / name, {"1.jpg": A, "1.cls": b"0"})
    with pytest.raises(
        InputError, match=r"several splits: train \(train-000.tar\), validation.*train-\*\.tar"
    ):
        len(Tar(str(tmp_path / "tars")))
    assert len(Tar(str(tmp_path / "tars" / "train-*.tar"))) == 2


# -- links


def test_folders_that_contain_themselves_are_listed_once(tmp_path, caplog):
    source = write_folder(tmp_path / "a", {"cat/1.jpg": A, "dog/1.jpg": B})
    for number in range(3):  # two of them made as many paths as there are sequences of both
        (tmp_path / "a" / "cat" / f"here{number}").symlink_to(".")
        (tmp_path / "a" / "cat" / f"up{number}").symlink_to("..")
        (tmp_path / "a" / "dog" / f"cat{number}").symlink_to("../cat")
    (tmp_path / "a" / "itself").symlink_to("itself")
    assert held(source).keys() == {"cat/1.jpg", "dog/1.jpg"}
    assert "passed over cat/here0" in caplog.text and "itself, which leads nowhere" in caplog.text


def test_links_to_folders_and_files_elsewhere_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"1.jpg": A, "deep/2.jpg": B})
    source = write_folder(tmp_path / "a", {"dog/1.jpg": C})
    (tmp_path / "a" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "dog" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    assert held(source) == {
        "cat/1.jpg": ("cat", A),
        "cat/deep/2.jpg": ("cat", B),
        "dog/1.jpg": ("dog", C),
        "dog/2.jpg": ("dog", A),
    }


def test_links_in_a_zip_file_are_the_images_they_lead_to(tmp_path):
    links = {"dog/2.jpg": "../cat/1.jpg", "dog/3.jpg": "2.jpg"}
    source = write_zip(tmp_path / "a.zip", {"cat/1.jpg": A, "dog/1.jpg": B}, links)
    assert held(source)["dog/3.jpg"] == held(source)["dog/2.jpg"] == ("dog", A)
    for target in ("/etc/passwd", "../../x.jpg", "4.jpg", "gone.jpg"):
        with pytest.raises(InputError, match=r"dog/4\.jpg, a link to"):
            len(write_zip(tmp_path / "b.zip", {"cat/1.jpg": A}, {"dog/4.jpg": target}))


def test_links_in_a_tar_file_are_the_files_they_lead_to(tmp_path):
    """GNU tar writes a second name of a file as a hard link: labels that are hard links of each other are common."""
    files = {"x/1.jpg": A, "x/1.cls": b"1", "x/2.jpg": B}
    links = {"x/2.cls": (tarfile.LNKTYPE, "x/1.cls"), "x/3.jpg": (tarfile.SYMTYPE, "1.jpg")}
    links |= {"x/3.cls": (tarfile.SYMTYPE, "../x/2.cls"), "latest": (tarfile.SYMTYPE, "x")}
    source = write_tar(tmp_path / "a.tar", files, links)
    assert held(source) == {"a.tar/x/1": ("1", A), "a.tar/x/2": ("1", B), "a.tar/x/3": ("1", A)}
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        with pytest.raises(InputError, match=r"x/3\.cls, a link to (/)?etc/passwd"):
            len(write_tar(tmp_path / "b.tar", {"x/3.jpg": A}, {"x/3.cls": (kind, "/etc/passwd")}))
        with pytest.raises(InputError, match="a link to"):
            len(write_tar(tmp_path / "c.tar", {}, {"a.jpg": (kind, "b.jpg"), "b.jpg": (kind, "a.jpg")}))


# -- what is there twice, alone, or no file


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("cat/1.jpg", A)
        file.writestr("cat/1.jpg", B)
    with pytest.raises(InputError, match=r"cat/1\.jpg is there twice"):
        len(Zip(str(tmp_path / "a.zip")))
    with pytest.raises(InputError, match=r"cat/1\.jpg is there twice"):
        len(write_zip(tmp_path / "b.zip", {"cat/1.jpg": A, "cat\\1.jpg": B}))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("1.jpg", A), ("1.cls", b"0"), ("1.cls", b"1")):
            add(tar, name, content)
    with pytest.raises(InputError, match=r"1\.cls is there twice"):
        len(Tar(str(tmp_path / "a.tar")))


def test_labels_without_images_are_refused(tmp_path):
    """A picture of a kind that is not read would be left out without a word."""
    files = {"1.jpg": A, "1.cls": b"0", "2.heic": b"x", "2.cls": b"1"}
    with pytest.raises(InputError, match="1 labels without an image: 2"):
        len(write_tar(tmp_path / "a.tar", files))


def test_other_files_are_counted(tmp_path, caplog):
    caplog.set_level("INFO", "dit")
    files = {"cat/1.jpg": A, "cat/2.heic": b"x", "cat/3.heic": b"x", "cat/more.zip": b"x", "README": b"x"}
    assert len(write_folder(tmp_path / "a", files)) == 1
    assert "passed over" in caplog.text and ".heic 2" in caplog.text and ".zip 1" in caplog.text


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [make_pipe, make_socket])
def test_pipes_and_the_like_are_refused_without_waiting(make, tmp_path):
    source = write_folder(tmp_path / "a", {"cat/1.jpg": A})
    make(tmp_path / "a" / "cat" / "2.jpg")
    with pytest.raises(InputError, match=r"cat/2\.jpg.*regular files"):
        len(source)
    for kind, name in ((Zip, "a.zip"), (Tar, "a.tar"), (Tar, "b.tar")):
        make(tmp_path / name)
        with pytest.raises(InputError, match="regular files"):
            len(kind(str(tmp_path / name) if name != "b.tar" else str(tmp_path / "*.tar")))


def test_a_picture_that_becomes_a_pipe_or_too_large_is_unreadable(tmp_path):
    source = write_folder(tmp_path, {"cat/1.jpg": A, "cat/2.jpg": B})
    assert len(source) == 2
    (tmp_path / "cat" / "1.jpg").unlink()
    os.mkfifo(tmp_path / "cat" / "1.jpg")
    os.truncate(tmp_path / "cat" / "2.jpg", 2**40)  # takes no room on disk
    for index, why in ((0, "a pipe"), (1, r"1,099,511,627,776 bytes")):
        with pytest.raises(UnreadableImage, match=why):
            source.content(index)


# -- headers that promise more than there is


def test_tar_headers_that_promise_too_much(tmp_path):
    path = tmp_path / "a.tar"
    for size, kind in ((2**60, b"0"), (-1, b"0"), (2**60, b"x"), (-512, b"x"), (2**60, b"L"), (2**33, b"g")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            add(tar, "1.cls", b"0")
            member = tarfile.TarInfo("1.jpg")
            member.type, member.size = kind, 0
            tar.addfile(member)
        data = bytearray(buffer.getvalue())
        data[1024 + 124 : 1024 + 136] = (
            size.to_bytes(12, "big", signed=True) if size < 0 else bytes([0x80]) + size.to_bytes(11, "big")
        )
        data[1024 + 148 : 1024 + 156] = b" " * 8  # the checksum counts itself as blanks
        data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.tar"):
            len(Tar(str(path)))


def test_a_long_label_is_no_label(tmp_path):
    with pytest.raises(InputError, match=r"1\.cls.*integer class label"):
        len(write_tar(tmp_path / "a.tar", {"1.jpg": A, "1.cls": b" " * 2**20 + b"1"}))


def test_a_zip_member_that_promises_too_much_is_unreadable(tmp_path):
    source = write_zip(tmp_path / "a.zip", {"cat/1.jpg": A})
    source._members[0][1].file_size = 2**60
    with pytest.raises(UnreadableImage, match="bytes, more than"):
        source.content(0)


@pytest.mark.parametrize("kind", [Folder, Tar])
def test_a_folder_that_cannot_be_listed_is_named(kind, tmp_path, monkeypatch):
    """Root may list everything, so that the refusal is made here."""
    (tmp_path / "closed").mkdir()
    whole = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"closed \(Permission denied\).*can be read"):
        len(kind(str(tmp_path)))


@pytest.mark.parametrize("kind", [Folder, Zip, Tar])
@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "a" * 300, "a/" * 3000])
def test_paths_that_cannot_be(kind, path):
    with pytest.raises(InputError, match=r"data\.source\.path"):
        len(kind(path))
