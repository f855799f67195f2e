"""Images in parquet files, in the layout of the Hugging Face Hub."""

import bisect
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dit.data.images import UnreadableImage, check_file_bytes
from dit.data.sources import columns
from dit.data.sources.base import EncodedFiles, Stamp, expand, file_stamps
from dit.data.sources.names import shown
from dit.errors import InputError

BATCH_ROWS = 64  # read at a time: a whole row group of more than 2 GiB is too much for one Arrow array


@dataclass(frozen=True)
class Parquet(EncodedFiles):
    """Parquet files in the layout of the Hugging Face Hub: a struct column with the file's ``bytes``, or a binary
    column, beside a column of labels.

    Integer labels are numbers of classes, whose names come from the ``huggingface`` metadata of the first file where
    it has them; text and booleans are classes in alphabetical order.

    Args:
        path: a parquet file, a folder of them, or a wildcard.
        label_column: name of the label column; None makes all images one class.
        image_column: name of the image column, ``outer.inner`` for a field of a nested one; None is the only one
            there is.
        caption_column: name of the column of captions; None has none.
    """

    path: str
    label_column: str | None = "label"
    image_column: str | None = None
    caption_column: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _recent: list[tuple[int, list[bytes | None]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @cached_property
    def _paths(self) -> list[Path]:
        return expand(self.path, ".parquet")

    @cached_property
    def _files(self) -> list[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = []
        for path in self._paths:
            try:
                files.append(pq.ParquetFile(path))
            except (OSError, pa.ArrowException, MemoryError) as error:
                raise InputError("data.source.path", f"{path} ({error})", "readable parquet files") from error
            _check_rows(path, files[-1].metadata)
            columns.image_column(path, files[-1].schema_arrow, self.image_column)
            if self.label_column is not None:
                columns.check_label_column(path, files[-1].schema_arrow, self.label_column)
        return files

    @cached_property
    def _groups(self) -> tuple[list[int], list[tuple[int, int]]]:
        """First image of every row group, and the group's (file, number)."""
        starts, groups, total = [], [], 0
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                starts.append(total)
                groups.append((number, group))
                total += file.metadata.row_group(group).num_rows
        return starts, groups

    @cached_property
    def _listing(self):
        names, sizes, values = [], [], []
        for path, file in zip(self._paths, self._files):
            rows = (
                self._column(path, file, self.label_column)
                if self.label_column
                else [0] * file.metadata.num_rows
            )
            values += rows
            names += [f"{shown(path.name)}:{row}" for row in range(len(rows))]
            sizes += [path.stat().st_size] * len(rows)  # the rows' own sizes would mean reading everything
        if not values:
            raise InputError("data.source.path", self.path, "parquet files with at least one row")
        if self.label_column is None:
            return names, sizes, values, ("all",)
        hub = columns.hub_names(self._paths[0], self._files[0].schema_arrow, self.label_column)
        where = f"{self._paths[0].name}: {self.label_column}"
        return names, sizes, *columns.classes(values, hub, where)

    def _column(self, path: Path, file: Any, name: str) -> list[Any]:
        """The value of a column in every row of a file, as it stands there."""
        import pyarrow as pa

        try:
            table = file.read(columns=[name])
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise InputError("data.source.path", f"{path} ({error})", "readable parquet files") from error
        return columns.leaf(table.column(0), table.column_names[0], name).to_pylist()

    def captions(self) -> list[str | None]:
        """The texts in the column of captions."""
        key = "data.source.caption_column"
        if self.caption_column is None:
            raise InputError(key, None, "the name of a column of captions, to train on texts")
        found: list[str | None] = []
        for path, file in zip(self._paths, self._files):
            columns.check_text_column(path, file.schema_arrow, self.caption_column, key)
            found += [
                text and (text.strip() or None) for text in self._column(path, file, self.caption_column)
            ]
        return found

    def _stamps(self) -> Iterable[Stamp]:
        return file_stamps(self._paths)

    def content(self, index: int) -> bytes:
        data = self._row(index)
        if data is None:
            raise UnreadableImage("no bytes stored (only a path)")
        check_file_bytes(len(data))
        return data

    def _row(self, index: int) -> bytes | None:
        """From the row groups read last: threads at a boundary need two at a time, no more."""
        for start, rows in self._recent:
            if start <= index < start + len(rows):
                return rows[index - start]
        with self._lock:
            starts, groups = self._groups
            place = bisect.bisect_right(starts, index) - 1
            if all(start != starts[place] for start, _ in self._recent):  # no other thread was faster
                rows = self._read_group(*groups[place])
                self._recent[:] = [(starts[place], rows), *self._recent[:1]]
            return next(rows for start, rows in self._recent if start == starts[place])[index - starts[place]]

    def _read_group(self, number: int, group: int) -> list[bytes | None]:
        import pyarrow as pa

        path, file = self._paths[number], self._files[number]
        column = columns.image_column(path, file.schema_arrow, self.image_column)
        rows: list[bytes | None] = []
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
                rows += columns.leaf(batch.column(0), batch.schema.names[0], column).to_pylist()
        except (OSError, pa.ArrowException, MemoryError) as error:
            raise UnreadableImage(f"{path.name}, row group {group}: {error}") from error
        if len(rows) != file.metadata.row_group(group).num_rows:
            raise UnreadableImage(f"{path.name}, row group {group}: {len(rows)} rows, fewer than it promises")
        return rows


def _check_rows(path: Path, footer: Any) -> None:
    """Refuses a footer that promises more rows than the file can hold, before memory is taken for them."""
    groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != footer.num_rows or footer.num_rows > path.stat().st_size:
        got = f"({path} with {footer.num_rows} rows in groups of {groups[:5]})"
        raise InputError("data.source.path", got, "a footer that agrees with its file")
