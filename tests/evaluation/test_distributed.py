"""Statistics and metrics of 2 and 4 processes against those of one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dit.evaluation.evaluate import evaluate_samples
from dit.evaluation.measure import compare, measure_images
from dit.evaluation.meter import Meter
from dit.evaluation.reference import measure_reference
from tests.evaluation.conftest import SAMPLING, make_codec, make_denoiser, make_images
from tests.evaluation.test_measure import Pooled

METRICS = ("fd", "sfid", "is", "kid", "precision_recall", "fd_infinity", "memorisation")


class Held:
    """Images in memory as a set of files."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.images[start:stop]


def measure_all(rank: int, world: int, distributed: bool) -> dict:
    """Metrics of given images, shared out image by image, and of generated ones."""
    images = make_images()
    meter = Meter(Pooled(), METRICS, [101, 203], hashed=True, distributed=distributed)
    for part in np.array_split(np.arange(rank, 203, world), 3):
        meter.update(images[part], part)
    reference = measure_reference(images, Pooled(), METRICS)
    results = [compare(measured, reference, METRICS) for measured in meter.results()]
    made = evaluate_samples(
        make_denoiser(),
        make_codec(),
        Pooled(),
        reference,
        n=61,
        preview=5,
        batch_size=16,  # 4 batches, the last of 13: 4 ranks have one each
        distributed=distributed,
        **SAMPLING,
    )
    few = evaluate_samples(  # 2 batches: of 4 ranks, 2 have none
        make_denoiser(),
        make_codec(),
        Pooled(),
        reference,
        n=20,
        batch_size=16,
        distributed=distributed,
        **SAMPLING,
    )
    files = measure_images(
        Held(images), Pooled(), METRICS, counts=[80, 81], batch_size=32, distributed=distributed
    )
    return {
        "given": results,
        "hash": meter.results()[-1].stats.metadata["images"],
        "made": [made.metrics["frechet_distance"], few.metrics["frechet_distance"]],
        "files": [compare(measured, reference, METRICS) for measured in files],
        "preview": made.preview.int().sum((1, 2, 3)).tolist(),
        "protocol": made.protocol.hash,
    }


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    found = measure_all(rank, world, distributed=True)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::dit.evaluation.metrics.MetricWarning")  # few images on purpose
@pytest.mark.parametrize("world", [2, 4])
def test_every_number_is_that_of_one_process(world: int, tmp_path) -> None:
    torch.multiprocessing.spawn(worker, args=(world, str(tmp_path)), nprocs=world)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers: more round differently
    expected = measure_all(0, 1, distributed=False)
    torch.set_num_threads(threads)
    for rank in range(world):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for ours, alone in zip(found["given"] + found["files"], expected["given"] + expected["files"]):
            assert ours.keys() == alone.keys()
            for name, value in alone.items():
                assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        assert found["hash"] == expected["hash"] and found["protocol"] == expected["protocol"]
        assert found["made"] == pytest.approx(
            expected["made"], rel=1e-9
        )  # the same batches, so the same images
        assert found["preview"] == expected["preview"]
