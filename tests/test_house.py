"""The shape of the house: no circle of imports, also inside functions; short functions and files, no large package."""

import ast
import io
import statistics
import tokenize
from pathlib import Path

import dit

PACKAGE = Path(dit.__file__).parent
LONGEST_FUNCTION, MEDIAN_FUNCTION, LONGEST_FILE, LONGEST_VERB, LARGEST_SHARE = 60, 8, 300, 120, 0.18
LONG_FUNCTIONS = {"data/encode.py: encode_dataset": 110}  # to be shortened, and not to grow further


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(tree: ast.AST, modules: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever it does; not those for the type checker alone."""
    found: set[str] = set()
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else str(node.module))
    return found & set(modules)


def test_no_circle_of_imports() -> None:
    modules = _modules()
    left = {name: _imports(ast.parse(path.read_text()), modules) for name, path in modules.items()}
    assert left["dit.verbs.train"], "the test reads imports"
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"each of these imports another of them: {sorted(left)}"


def _source_lines(text: str) -> int:
    """Lines with code: no blank ones, no comments, no docstrings."""
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_functions_and_files_are_short() -> None:
    lengths: dict[str, int] = {}
    files: dict[str, int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text, name = path.read_text(), str(path.relative_to(PACKAGE))
        files[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                key = f"{name}: {node.name}"
                lengths[key] = max(lengths.get(key, 0), (node.end_lineno or 0) - node.lineno + 1)
    assert len(lengths) > 1000, "the test reads functions"
    assert not {name: n for name, n in files.items() if n > LONGEST_FILE}
    assert not {name: n for name, n in lengths.items() if n > LONG_FUNCTIONS.get(name, LONGEST_FUNCTION)}
    assert not {name: n for name, n in files.items() if name.startswith("verbs/") and n > LONGEST_VERB}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION


def test_no_package_outweighs_the_others() -> None:
    sizes: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        package = path.relative_to(PACKAGE).parts[0]
        sizes[package] = sizes.get(package, 0) + _source_lines(path.read_text())
    assert {name: size for name, size in sizes.items() if size > LARGEST_SHARE * sum(sizes.values())} == {}
