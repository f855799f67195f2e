r"""File names of every operating system: is the file hidden, is it an image, which class and split has it?

Names are compared and shown with "/" between their parts, in Unicode's composed form (NFC: macOS writes the other one),
and with bytes that are no UTF-8 as ``\xe9``; files are opened by the name they really have.
"""

import errno
import logging
import os
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dit.errors import InputError

log = logging.getLogger("dit")

EXTENSIONS = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
# folders that systems add: macOS's second copies, thumbnails of Synology, Windows' and Linux' own
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SHARD = re.compile(r"(.+?)[-._]\d{5}[-_]of[-_]\d{5}\b.*")  # the Hub's {split}-00000-of-00002.parquet


def shown(name: str) -> str:
    """A name as text that can be printed, hashed and compared."""
    return portable(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def portable(name: str) -> str:
    """A relative name with "/" between its parts, of which none is "." or empty."""
    composed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return "/".join(part for part in composed.split("/") if part not in ("", "."))


def is_hidden(name: str) -> bool:
    """Whether a relative name has a part that systems hide: a dot in front, or one of their own folders."""
    parts = name.replace("\\", "/").split("/")
    return any(
        part.lower() in SYSTEM_FOLDERS or (part.startswith(".") and part not in (".", "..")) for part in parts
    )


def is_image(name: str, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Whether a relative name has the extension of an image, or of other items, and is not hidden."""
    return name.lower().endswith(extensions) and not is_hidden(name)


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below a folder that is not hidden: (name from there, entry).

    Links to folders are followed once all real folders are listed, and no folder is listed twice: a link to a folder
    around it, or to one that is there already, is passed over with a warning.
    """
    try:
        yield from _walk(root)
    except OSError as error:
        raise unlisted(error) from error


def unlisted(error: OSError, key: str = "data.source.path") -> InputError:
    """The error for what cannot be listed: left out without a word, it would change the data."""
    return InputError(key, f"{error.filename} ({error.strerror})", "files and folders that can be read")


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    seen: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()
    while folders or links:
        prefix = (folders or links).popleft()
        status = os.stat(root / prefix)
        if (status.st_dev, status.st_ino) in seen:
            log.warning("%s: passed over %s, which leads to a folder listed already", root, shown(prefix))
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(os.scandir(root / prefix), key=lambda entry: entry.name):
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if is_hidden(entry.name):
                continue
            if not _is_folder(entry):
                yield name, entry
            else:
                (links if entry.is_symlink() else folders).append(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself is a file that is not there
            raise
        return False


def say_passed_over(path: str, names: Iterable[str], items: str = "images") -> None:
    """One line for the files beside the items, by extension."""
    kinds = Counter(os.path.splitext(name)[1].lower() or "none" for name in names if not is_hidden(name))
    if kinds:
        listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(8))
        log.info("%s: passed over files that are no %s by their extension: %s", path, items, listed)


def check_distinct(path: str, names: Sequence[str]) -> None:
    """Raises InputError where two files have the same name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError("data.source.path", f"({path}: {twice[0]} is there twice)", "every name once")


def class_folders(
    path: str, names: Sequence[str], items: str = "images", extensions: tuple[str, ...] = EXTENSIONS
) -> tuple[list[int], tuple[str, ...]]:
    """Labels of files named ``class/.../file``: classes in alphabetical order; one class where there are no folders."""
    if not names:
        allowed = f"{items} in one folder per class (" + " ".join(extensions) + ")"
        raise InputError("data.source.path", path, allowed, "Archives inside it must be unpacked first.")
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in tops and len(classes) > 1:
        stray = names[tops.index("")]
        raise InputError(
            "data.source.path", f"{path}: {stray} beside class folders", "one folder per class", "Move it."
        )
    _check_splits(path, names, classes)
    for _, alike in _groups(classes, str.casefold):
        log.warning("%s: %s are classes of their own, though only case tells them apart", path, alike)
    number = {name: label for label, name in enumerate(classes)}
    return [number[top] for top in tops], tuple(name or "all" for name in classes)


def check_composed(path: str, folders: Iterable[str]) -> None:
    """Raises InputError where two folders differ by the form of their accents alone, which no one can see."""
    for name, alike in _groups({folder.replace("\\", "/") for folder in folders}, portable):
        got = f"({path}: {len(alike)} folders named {name}, with their accents in different forms of Unicode)"
        raise InputError("data.source.path", got, "class folders of different names", "Merge or rename them.")


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[tuple[str, list[str]]]:
    """Names that are equal under ``key``, two and more."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(key(name), []).append(name)
    return [(name, alike) for name, alike in found.items() if len(alike) > 1]


def _check_splits(path: str, names: Sequence[str], classes: Sequence[str]) -> None:
    """Refuses folders train/, test/ and the like as classes."""
    deep = all(name.count("/") > 1 for name in names)
    if not all(name.lower() in SPLITS for name in classes) or not (deep or len(classes) > 1):
        return
    raise InputError(
        "data.source.path",
        f"({path} with the folders {', '.join(classes)}, which are splits)",
        "one split, with a folder per class",
        f"Name one: data.source.path={path}/{classes[-1]} (of an archive, unpack it first).",
    )


def split_of(name: str) -> str:
    """The split that a file's name or folders tell: ``data/train-00000-of-00002.parquet`` is of ``train``; or ""."""
    *folders, file = portable(name).lower().split("/")
    shard = SHARD.fullmatch(file)
    for part in ([shard[1]] if shard else []) + [file, *reversed(folders)]:
        words = [word for word in re.split(r"[-._ \d]+", part) if word in SPLITS]
        if words:
            return SPLITS[words[-1]]
        if shard and part == shard[1]:
            return part
    return ""


def check_one_split(path: str, names: Sequence[str]) -> None:
    """Raises InputError where files of more than one split would be read as one set."""
    examples: dict[str, str] = {}
    for name in names:
        examples.setdefault(split_of(name), name)
    if not set(examples) - {"", "train"} or len(examples) < 2:
        return
    named = ", ".join(f"{split or 'no split'} ({name})" for split, name in sorted(examples.items()))
    chosen = examples.get("train") or next(iter(examples.values()))
    wildcard = re.sub(r"\d+", "*", chosen)
    place = path if not any(c in path for c in "*?[") else "..."
    raise InputError(
        "data.source.path",
        f"({path} with files of several splits: {named})",
        "the files of one split",
        f"Name one by a wildcard: 'data.source.path=\"{place.rstrip('/')}/{wildcard}\"'.",
    )
