"""Trains the digits classifier whose features measure the digits study; the same machine makes the same file
twice.

    python experiments/digits/train_classifier.py           # writes
    dit/evaluation/assets/digits_classifier.safetensors

About a minute on one core. Only the training split is seen. Light augmentation (shift, turn, zoom, contrast,
blur, noise) keeps it right on generated digits, which a variational autoencoder has blurred a little.
"""

import argparse
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.transforms.functional import gaussian_blur

from dit.data.images import Digits
from dit.data.split import Stratified
from dit.evaluation.features import DIGITS_CLASSIFIER, DigitsClassifier
from dit.evaluation.reference import SourceImages

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 40, 64, 3e-3, 1e-2
SEED = 0
HELD_OUT = 297  # as conf/data/digits.yaml


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 (B, 3, 32, 32) moved by up to 2.5 pixels, 12 degrees and 8 %; contrast, blur and noise vary."""
    count = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, zoom = uniform(-0.21, 0.21), uniform(0.92, 1.08)
    shift = torch.stack([uniform(-0.16, 0.16), uniform(-0.16, 0.16)], 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    theta = torch.cat([turn * zoom[:, None, None], shift[:, :, None]], 2)
    places = F.affine_grid(theta, [count, 3, 32, 32], align_corners=False)
    moved = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
    blurred = gaussian_blur(moved, [5, 5], [0.2 + 1.0 * float(torch.rand((), generator=generator))])
    varied = blurred * uniform(0.85, 1.1)[:, None, None, None]
    noise = uniform(0, 12)[:, None, None, None] * torch.randn(count, 1, 32, 32, generator=generator)
    return (varied + noise).clamp(0, 255)


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int = EPOCHS) -> DigitsClassifier:
    """The classifier after ``epochs`` passes over images (N, 3, 32, 32) uint8 by AdamW, cosine schedule."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = DigitsClassifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps_per_epoch = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps_per_epoch)
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator)[: steps_per_epoch * BATCH].split(BATCH):
            logits = network(augment(images[index], generator))
            loss = F.cross_entropy(logits, labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def split(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The images (N, 3, 32, 32) uint8 and labels (N,) of a split of conf/data/digits.yaml."""
    source = Digits()
    held_out = Stratified(count=HELD_OUT).chooser(source)
    index = [i for i in range(len(source)) if held_out(i, source.content(i)) == (name == "validation")]
    images = SourceImages(source, index, image_size=32).read(0, len(index))
    return images, torch.tensor([source.label(i) for i in index])


def main() -> None:
    """Trains, prints the held-out accuracy and the hash, and writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DIGITS_CLASSIFIER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the file is a function of this script
    network = train(*split("train"))
    held_out, labels = split("validation")
    with torch.inference_mode():
        right = (network(held_out).argmax(1) == labels).float().mean().item()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, arguments.out)
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{arguments.out}: {right:.2%} right on {len(labels)} held-out digits, sha256 {digest}")


if __name__ == "__main__":
    main()
