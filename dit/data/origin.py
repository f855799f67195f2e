"""The origin of a latent directory: have its images changed since they were encoded?

``origin.json`` beside the manifest holds the source's stamps, hashes over names, sizes and times of its files. The one
that knows the very files (``here``) moves with whatever is done to them; the other is kept by copies of them with their
times, by which encoding that was interrupted goes on. While the first stays, nothing is read. Where it has moved, the
images are read again, and their hash must be the manifest's. Stamps are no part of the manifest: copies of the same
images have other times, and are the same data.
"""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from dit.data.images import Source, UnreadableImage
from dit.data.manifest import read_manifest
from dit.errors import InputError
from dit.files import whole, write_json

log = logging.getLogger("dit")

NAME = "origin.json"
REMEDY = "Remove {0} to encode them anew, or name another data.directory."


def begin(folder: Path, source: Source) -> None:
    """Notes the stamp where encoding begins; where it goes on, the stamp must be the one that was noted.

    Raises:
        InputError: what is there was made from other images, as far as their files' times tell.
    """
    result, stamp = folder / "result", source.stamp(of_copies=True)
    known = _known(result).get("stamp")
    if not stamp or known == stamp:
        return
    if known is not None or any((folder / "blocks").iterdir()):
        raise InputError(
            "data.source",
            f"(files that have changed since {folder} was begun)",
            "the images of which a part is encoded already, with their times (cp -p, rsync -t)",
            REMEDY.format(folder),
        )
    with whole(result / NAME, folder / "scratch") as partial:
        partial.write_text(json.dumps({"stamp": stamp, "here": source.stamp()}))


def check_origin(directory: str | Path, source: Source, *, noted_only: bool = False) -> None:
    """Raises InputError where the images of ``source`` are others than those that were encoded into ``directory``.

    Args:
        directory: a finished latent directory.
        source: the images as they are now.
        noted_only: pass directories that hold no stamp, instead of reading all images.
    """
    directory = Path(directory)
    here, stamp, known = source.stamp(), source.stamp(of_copies=True), _known(directory)
    if not stamp or known.get("here") == here or (noted_only and "stamp" not in known):
        return
    if "here" not in known and known.get("stamp") == stamp:  # of an older version
        return
    manifest = read_manifest(directory)
    made = manifest["source"]
    log.info("%s: the times of its images' files are not those noted; reading the images", directory)
    now = source.identity() | {"content_sha256": content_sha256(source, manifest["config"]["shard_images"])}
    compared = set(made) & set(now) if made["kind"] == now["kind"] else {"content_sha256"}
    if changed := sorted(key for key in compared if made[key] != now[key]):
        raise InputError(
            "data.source",
            f"(images that have changed since they were encoded into {directory}: other {', '.join(changed)})",
            "the very images that were encoded",
            REMEDY.format(directory),
        )
    log.info("%s: the images are those that were encoded", directory)
    with suppress(OSError):  # somebody else's directory: the images are read again next time
        write_json(directory / NAME, {"stamp": stamp, "here": here})


def content_sha256(source: Source, block: int) -> str:
    """The hash of all images' files, as encoding makes it: over the hashes of blocks of ``block`` images."""
    digests = ""
    for first in range(0, len(source), block):
        digest = hashlib.sha256()
        for index in range(first, min(len(source), first + block)):
            with suppress(UnreadableImage):
                digest.update(source.content(index))
        digests += digest.hexdigest()
    return hashlib.sha256(digests.encode()).hexdigest()


def _known(folder: Path) -> dict[str, Any]:
    """The stamps that were noted; none where nothing can be read."""
    try:
        found: Any = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
