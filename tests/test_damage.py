"""A few of the flips and truncations of ``tests/damage.py``; by hand, or marked slow, a thousand."""

import pytest

from tests import damage


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    damage.make(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_damage_of_any_file_is_silent_or_a_traceback(files, monkeypatch):
    """1,000 flips and truncations over thirteen kinds of file."""
    monkeypatch.chdir(files)
    counts, wrong = damage.run(files, 1000, seed=11)
    print(*(f"{kind:20} {found:10} {count}" for (kind, found), count in sorted(counts.items())), sep="\n")
    assert not wrong, "\n".join(wrong)
    assert sum(count for (_, verdict), count in counts.items() if verdict == "refused") > 600
