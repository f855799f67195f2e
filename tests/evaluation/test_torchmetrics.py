"""The Fréchet distance against torchmetrics, which sums features and their products batch by batch."""

import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from dit.evaluation.metrics import frechet_distance
from dit.evaluation.statistics import Statistics


class Patches(torch.nn.Module):
    """Fixed features of uint8 images (b, 3, H, W): a strided random convolution, its mean and its spread."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight.double() / 48)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.conv2d(images.double() / 127.5 - 1, self.weight, stride=4).relu()
        return torch.cat([found.mean((2, 3)), found.std((2, 3))], 1)


def test_equals_torchmetrics_on_images_in_batches() -> None:
    generator = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (300, 3, 16, 16), generator=generator, dtype=torch.uint8)
    generated = torch.randint(0, 200, (260, 3, 16, 16), generator=generator, dtype=torch.uint8)
    theirs = FrechetInceptionDistance(Patches()).set_dtype(torch.float64)
    ours = {True: Statistics(24, {}), False: Statistics(24, {})}
    for images, is_real in ((real, True), (generated, False)):
        for batch in images.split(64):
            theirs.update(batch, real=is_real)
            ours[is_real].update(Patches()(batch))
    assert frechet_distance(ours[False], ours[True]) == pytest.approx(float(theirs.compute()), rel=1e-6)
