"""The columns of parquet files that hold images and labels, and the classes of these labels."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dit.data.sources.base import check_labels, numbered
from dit.data.sources.names import log
from dit.errors import InputError


def image_columns(schema: Any) -> list[str]:
    """Columns, or fields of nested ones (``a.b``), that may hold encoded images: structs with ``bytes``, the Hub's
    layout, or else plain binary columns.
    """
    import pyarrow as pa

    def is_binary(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def fields(parent: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for field in parent:
            yield prefix + field.name, field.type
            if pa.types.is_struct(field.type):
                yield from fields(field.type, f"{prefix}{field.name}.")

    every = list(fields(schema, ""))
    structs = [
        name
        for name, kind in every
        if pa.types.is_struct(kind)
        and kind.get_field_index("bytes") >= 0
        and is_binary(kind.field("bytes").type)
    ]
    inside = tuple(f"{name}." for name in structs)
    plain = [name for name, kind in every if is_binary(kind) and not name.startswith(inside)]
    return structs + plain


def image_column(path: Path, schema: Any, named: str | None) -> str:
    """The column of the encoded images: the one named, else the only struct with ``bytes``, else the only binary one.

    Returns:
        The name of the leaf that holds the bytes, as parquet names it (``image.bytes``).
    """
    import pyarrow as pa

    found = image_columns(schema)
    structs = [name for name in found if not _is_leaf(pa, schema, name)]
    candidates = [name for name in found if name == named] if named is not None else structs or found
    if len(candidates) != 1:
        allowed = "an image column: a struct with a field `bytes`, as the Hub stores images, or binary"
        remedy = f"Choose one of {', '.join(found)}: +data.source.image_column=..." if found else ""
        key, got = ("path", f"({path.name} with columns {schema.names})")
        if named is not None:
            key, got = "image_column", named
        raise InputError(f"data.source.{key}", got, allowed, remedy)
    return candidates[0] if _is_leaf(pa, schema, candidates[0]) else f"{candidates[0]}.bytes"


def _is_leaf(pa: Any, schema: Any, name: str) -> bool:
    return not pa.types.is_struct(type_of(schema, name))


def type_of(schema: Any, name: str) -> Any:
    """The type of a column, or of a field of nested ones (``a.b``); None where there is none."""
    if name in schema.names:
        return schema.field(name).type
    first, _, rest = name.partition(".")
    if first not in schema.names:
        return None
    kind = schema.field(first).type
    for part in rest.split(".") if rest else []:
        index = kind.get_field_index(part) if hasattr(kind, "get_field_index") else -1
        if index < 0:
            return None
        kind = kind.field(index).type
    return kind


def leaf(array: Any, name: str, column: str) -> Any:
    """The values of ``column`` (``a.b``) in an array that was read for it as ``name`` (``a``); nulls stay nulls."""
    import pyarrow.compute as pc

    rest = column[len(name) + 1 :]
    return pc.struct_field(array, rest.split(".")) if rest else array  # type: ignore[attr-defined]


def check_label_column(path: Path, schema: Any, label_column: str) -> None:
    """Refuses labels that are neither numbers of classes nor their names."""
    import pyarrow as pa

    kind = type_of(schema, label_column)
    if kind is None:
        raise InputError(
            "data.source.label_column", label_column, f"a column of {path.name}: {schema.names}",
            "For another name +data.source.label_column=..., for no labels null.",
        )  # fmt: skip
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    if not any(test(kind) for test in tests):
        raise InputError(
            f"{path.name}: {label_column}", str(kind), "class labels: integers, text or booleans"
        )


def check_text_column(path: Path, schema: Any, name: str, key: str) -> None:
    """Refuses a column of captions, set by ``key``, that is missing or holds no texts."""
    import pyarrow as pa

    kind = type_of(schema, name)
    if kind is None:
        raise InputError(key, name, f"a column of {path.name}: {schema.names}")
    if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        raise InputError(key, name, f"a column of texts; in {path.name} it holds {kind}")


def classes(values: Sequence[Any], hub: Sequence[str] | None, name: str) -> tuple[list[int], tuple[str, ...]]:
    """Labels and names of the classes of a column: numbers, with the Hub's names where there are some; text and
    booleans in alphabetical order.
    """
    kinds = {type(value) for value in values}
    if type(None) in kinds:
        raise InputError(name, None, "a class label in every row", "A split without labels cannot be used.")
    if kinds == {int}:
        labels = check_labels(list(values), name)
        return labels, numbered(labels, hub)
    if len(kinds) > 1:
        got = f"({' and '.join(sorted(kind.__name__ for kind in kinds))} in different files)"
        raise InputError(name, got, "labels of one kind")
    texts = [str(value).lower() if kinds == {bool} else str(value) for value in values]
    found = ["false", "true"] if kinds == {bool} else sorted(set(texts))
    number = {text: label for label, text in enumerate(found)}
    return check_labels([number[text] for text in texts], name), tuple(found)


def hub_names(path: Path, schema: Any, label_column: str) -> list[str] | None:
    """Names of the classes in the ``huggingface`` metadata; None, with a warning where these are broken, if there are
    none.
    """
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        known: Any = json.loads(text)
        for key in ("info", "features", label_column):
            known = known.get(key, {})
        names = known.get("names")
        if names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return names
    except (ValueError, AttributeError, RecursionError):
        pass
    log.warning("%s: its `huggingface` metadata cannot be read; classes are named by number", path.name)
    return None
