import dataclasses
import functools

import pytest

from dit.errors import InputError
from dit.evaluation.protocol import GUIDANCE, Protocol, describe, require_equal

BASE = Protocol(
    reference="r", reference_n=100, extractor="e", extractor_sha256="s", preprocessing="p", n=50, seed=0,
    labels="balanced", solver="euler", grid="uniform(n_steps=4)", nfe=4, weights="ema", precision="float32",
)  # fmt: skip


def test_every_field_moves_the_hash() -> None:
    hashes = {BASE.hash}
    fields = [field for field in dataclasses.fields(Protocol) if field.name not in GUIDANCE[1:]]
    for field in fields:
        value = getattr(BASE, field.name)
        other = (
            "random" if field.name == "labels" else (value or 0) + 7 if isinstance(value, int) else "another"
        )
        hashes.add(dataclasses.replace(BASE, **{field.name: other}).hash)
    assert len(hashes) == 1 + len(fields)


def test_a_record_round_trips() -> None:
    assert Protocol.from_dict(BASE.as_dict()) == BASE
    with pytest.raises(InputError, match=r"protocol\.colour"):
        Protocol.from_dict({**BASE.as_dict(), "colour": 1})


def test_mixing_protocols_names_the_field_in_conflict() -> None:
    other = dataclasses.replace(BASE, guidance="classifier_free(1.5)")
    with pytest.raises(InputError, match=r"protocol\.guidance.*classifier_free\(1\.5\).*none"):
        require_equal([BASE, BASE, other.as_dict()])
    shared = require_equal([BASE, other], varying=["guidance"])
    assert shared["nfe"] == 4 and "guidance" not in shared
    assert require_equal([]) == {}


def test_settings_are_described_with_their_arguments() -> None:
    def solver(x, eta=0.0): ...

    assert describe(functools.partial(solver, eta=0.5)) == "solver(eta=0.5)"
    assert describe(solver) == "solver"
    assert describe(None) == "none"
    assert describe(functools.partial(dict, 1, b=[2])) == "dict(1, b=[2])"


@pytest.mark.parametrize("n", [1, True, 3.5])
def test_a_wrong_count_is_refused(n: object) -> None:
    with pytest.raises(InputError, match=r"evaluation\.n"):
        dataclasses.replace(BASE, n=n)  # type: ignore[arg-type]
