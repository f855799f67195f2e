import itertools

import numpy as np
import pytest
import torch

from dit.condition import Classes, labelled
from dit.errors import InputError
from dit.evaluation.evaluate import evaluate_samples
from dit.evaluation.extractors import load_extractor
from dit.evaluation.generate import generate, generate_batches, sample_seeds
from dit.evaluation.reference import measure_reference


def test_an_image_depends_on_its_seed_and_label_alone(denoiser, codec, sampling) -> None:
    labels, seeds = Classes(10).drawn("random", 3, 11), sample_seeds(3, 11)
    whole = torch.cat(list(generate(denoiser, codec, labels, seeds, batch_size=11, **sampling)))
    for batch_size in (1, 4):
        parts = list(generate(denoiser, codec, labels, seeds, batch_size=batch_size, **sampling))
        assert [len(part) for part in parts] == [batch_size] * (11 // batch_size) + [11 % batch_size] * (
            11 % batch_size > 0
        )
        assert (torch.cat(parts).int() - whole.int()).abs().max() <= 1  # convolutions round by batch size
    tail = torch.cat(
        list(generate(denoiser, codec, labels.part(slice(7, None)), seeds[7:], batch_size=11, **sampling))
    )
    assert (tail.int() - whole[7:].int()).abs().max() <= 1
    assert whole.dtype == torch.uint8 and whole.shape == (11, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in whole}) == 11


def test_batches_carry_labels_seeds_and_cost(denoiser, codec, sampling) -> None:
    batches = list(
        generate_batches(
            denoiser, codec, labelled(torch.arange(5)), sample_seeds(0, 5), batch_size=2, **sampling
        )
    )
    assert torch.cat([batch.condition["label"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert [seed for batch in batches for seed in batch.seeds] == [0, 1, 2, 3, 4]
    assert {batch.nfe for batch in batches} == {4}


def test_generation_is_lazy(denoiser, codec, sampling) -> None:
    batches = generate(
        denoiser,
        codec,
        labelled(torch.zeros(10**6, dtype=torch.int64)),
        range(10**6),
        batch_size=2,
        **sampling,
    )
    assert len(list(itertools.islice(batches, 2))) == 2


def test_sampling_seeds_give_disjoint_sample_seeds_within_32_bits() -> None:
    blocks = [set(sample_seeds(seed, 50_000)) for seed in range(4)]
    assert len(set().union(*blocks)) == 200_000
    assert max(sample_seeds(4293, 1_000_000)) < 2**32
    with pytest.raises(InputError, match=r"^seed: "):
        sample_seeds(4294, 10)


def drawn(policy: str, seed: int, n: int, n_classes: int, empty: tuple[int, ...] = ()) -> torch.Tensor:
    return Classes(n_classes, empty).drawn(policy, seed, n)["label"]


def test_labels_of_fewer_samples_are_a_prefix_and_policies_are_what_they_say() -> None:
    for policy in ("balanced", "random"):
        assert torch.equal(drawn(policy, 1, 1000, 7)[:333], drawn(policy, 1, 333, 7))
    assert torch.bincount(drawn("balanced", 1, 1000, 10)).tolist() == [100] * 10
    for policy in ("balanced", "random"):  # no network has learnt a class without images
        counts = torch.bincount(drawn(policy, 1, 3000, 6, empty=(0, 3, 5)), minlength=6)
        assert counts[[0, 3, 5]].sum() == 0 and counts[[1, 2, 4]].min() > 900
        assert torch.equal(drawn(policy, 1, 99, 6, empty=()), drawn(policy, 1, 99, 6))
    counts = torch.bincount(drawn("random", 1, 10_000, 10)).double()
    assert len(counts) == 10 and ((counts - 1000).abs() < 5 * np.sqrt(900)).all()
    assert not torch.equal(drawn("random", 1, 99, 10), drawn("random", 2, 99, 10))
    with pytest.raises(InputError, match=r"^labels: .*balanced, random"):
        drawn("uniform", 0, 10, 10)


def test_labels_and_seeds_must_pair_up(denoiser, codec, sampling) -> None:
    with pytest.raises(InputError, match="one for each of the 4 samples"):
        list(generate(denoiser, codec, labelled(torch.zeros(3)), range(4), batch_size=2, **sampling))
    with pytest.raises(InputError, match="batch_size"):
        list(generate(denoiser, codec, labelled(torch.zeros(3)), range(3), batch_size=0, **sampling))


def test_evaluate_samples_names_its_protocol_and_does_not_depend_on_batch_size(
    denoiser, codec, sampling, images
) -> None:
    extractor = load_extractor("digits")
    reference = measure_reference([images], extractor).stats
    results = [
        evaluate_samples(
            denoiser,
            codec,
            extractor,
            reference,
            n=90,
            batch_size=size,
            weights="ema",
            preview=20,
            **sampling,
        )
        for size in (90, 32)
    ]
    for result in results:
        assert result.metrics["n"] == 90 and 0 <= result.metrics["accuracy"] <= 1
        assert (
            result.preview.shape == (20, 3, 32, 32)
            and result.preview_condition["label"].tolist() == [*range(10)] * 2
        )
    assert results[0].metrics["frechet_distance"] == pytest.approx(
        results[1].metrics["frechet_distance"], rel=1e-3
    )
    protocol = results[0].protocol
    assert protocol == results[1].protocol
    assert (protocol.solver, protocol.grid, protocol.nfe) == ("euler", "uniform(n_steps=4)", 4)
    assert (protocol.weights, protocol.decoder, protocol.reference_n) == ("ema", "identity", 300)
