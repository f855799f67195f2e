"""Images in parquet files, in the layout of the Hugging Face Hub."""

import bisect
import json
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dit.data.images import UnreadableImage
from dit.data.sources.base import EncodedFiles, check_labels, expand, numbered
from dit.errors import InputError


@dataclass(frozen=True)
class Parquet(EncodedFiles):
    """Parquet files in the layout of the Hugging Face Hub: a struct column with the file's ``bytes``, an
    integer label column.

    Class names come from the ``huggingface`` metadata of the first file where it has them.

    Args:
        path: a parquet file, a folder of them, or a wildcard.
        label_column: name of the label column; None makes all images one class.
    """

    path: str
    label_column: str | None = "label"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _recent: list[tuple[int, list[bytes | None]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    @cached_property
    def _paths(self) -> list[Path]:
        return expand(self.path, "*.parquet")

    @cached_property
    def _files(self) -> list[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = []
        for path in self._paths:
            try:
                files.append(pq.ParquetFile(path))
            except (OSError, pa.ArrowInvalid) as error:
                raise InputError("data.source.path", f"{path} ({error})", "readable parquet files") from error
            _check_columns(path, files[-1].schema_arrow, self.label_column)
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
        names, sizes, labels = [], [], []
        for path, file in zip(self._paths, self._files):
            column = [0] * file.metadata.num_rows
            if self.label_column is not None:
                column = file.read(columns=[self.label_column]).column(0).to_pylist()
            labels += check_labels(column, f"{path.name}: {self.label_column}")
            names += [f"{path.name}:{row}" for row in range(len(column))]
            sizes += [path.stat().st_size] * len(column)  # the rows' own sizes would mean reading everything
        if not labels:
            raise InputError("data.source.path", self.path, "parquet files with at least one row")
        if self.label_column is None:
            return names, sizes, labels, ("all",)
        hub = json.loads((self._files[0].schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        feature = hub.get("info", {}).get("features", {}).get(self.label_column, {})
        return names, sizes, labels, numbered(labels, feature.get("names"))

    def content(self, index: int) -> bytes:
        data = self._row(index)
        if data is None:
            raise UnreadableImage("no bytes stored (only a path)")
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
        column = _image_column(self._paths[number], self._files[number].schema_arrow)
        table = self._files[number].read_row_group(group, columns=[f"{column}.bytes"])
        return table.column(0).combine_chunks().field("bytes").to_pylist()


def _check_columns(path: Path, schema: Any, label_column: str | None) -> None:
    import pyarrow as pa

    _image_column(path, schema)
    if label_column is None:
        return
    if label_column not in schema.names:
        raise InputError("data.source.label_column", label_column, f"a column of {path.name}: {schema.names}")
    kind = schema.field(label_column).type
    if not pa.types.is_integer(kind):
        raise InputError(f"{path.name}: {label_column}", str(kind), "an integer column of class labels")


def _image_column(path: Path, schema: Any) -> str:
    import pyarrow as pa

    structs = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    if len(structs) != 1:
        allowed = "one struct column with a field `bytes`, as the Hub stores images"
        raise InputError("data.source.path", f"{path.name} with columns {schema.names}", allowed)
    return structs[0]
