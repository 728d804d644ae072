"""Train the demo's residual network on Fashion-MNIST and write the three files that the demo reads.

    apt-get install dataset-fashion-mnist && pip install 'deburr[train]' onnxscript
    python examples/fashion_mnist/train.py --out examples/fashion_mnist

Writes `model.onnx` (fp32, BatchNormalization kept as nodes), `calibration.npz` (500 training images, no labels) and
`evaluation.npz` (5,000 test images with labels). Ordinary training: no sparsity penalty, nothing that prepares for pruning.
"""

import argparse
import gzip
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DATA = Path("/usr/share/datasets/fashion-mnist")
WIDTHS = (32, 80, 192)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (the MNIST format: two zero bytes, type 8, rank, big-endian dims, data)."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    dims = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(dims)


def read_split(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 [N, 1, 28, 28] in 0..1 and labels as int64 [N]."""
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz").astype(np.float32)[:, None] / 255.0
    return images, read_idx(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64)


class Block(nn.Module):
    """conv-bn-relu, conv-bn, plus the input (through a 1x1 projection where the shape changes), relu. He et al. 2015."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def network(widths: tuple[int, ...] = WIDTHS, blocks: int = 2) -> nn.Sequential:
    """Three stages over 28x28, 14x14 and 7x7: 1.39 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    channels = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(Block(channels, width, 2 if stage and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip half of the batch, shift each image by up to 2 pixels, and erase one random rectangle from half of them."""
    count = len(images)
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    padded = functional.pad(images, (2, 2, 2, 2))
    corner = torch.randint(0, 5, (count, 2), generator=generator)
    rows = (corner[:, :1] + torch.arange(28))[:, :, None]
    columns = (corner[:, 1:] + torch.arange(28))[:, None, :]
    shifted = padded[torch.arange(count)[:, None, None], 0, rows, columns][:, None]
    top, left = torch.randint(0, 24, (2, count, 1), generator=generator)
    height, width = torch.randint(4, 13, (2, count, 1), generator=generator)
    line = torch.arange(28)[None]
    inside_y = (line >= top) & (line < top + height)
    inside_x = (line >= left) & (line < left + width)
    erase = inside_y[:, :, None] & inside_x[:, None, :] & (torch.rand(count, 1, 1, generator=generator) < 0.5)
    return torch.where(erase[:, None], torch.zeros(()), shifted)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return hits / len(labels)


def train(folder: Path, epochs: int, batch: int, seed: int, checkpoint: Path) -> nn.Module:
    """SGD with Nesterov momentum, one cosine cycle with warm-up, bfloat16 forward passes."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = (torch.from_numpy(a) for a in read_split(folder, "train"))
    test_images, test_labels = (torch.from_numpy(a) for a in read_split(folder, "t10k"))
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(images) // batch)

    def rate(step: int) -> float:
        warm = steps // 10
        return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in range(epochs):
        model.train()
        start, total = time.time(), 0.0
        order = torch.randperm(len(images), generator=generator)
        for index in order[: len(order) // batch * batch].split(batch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(augment(images[index], generator).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        score = accuracy(model, test_images, test_labels)
        torch.save(model.state_dict(), checkpoint)
        print(
            f"epoch {epoch}: loss {total * batch / len(images):.4f} test {score:.4f} in {time.time() - start:.0f} s", flush=True
        )
    return model


def export(model: nn.Module, path: Path) -> None:
    """Opset 17, dynamic batch, BatchNormalization left for `fold-batch-norm`."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )


def write_data(folder: Path, out: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, _ = read_split(folder, "train")
    np.savez_compressed(out / "calibration.npz", image=images[np.sort(rng.choice(len(images), 500, replace=False))])
    images, labels = read_split(folder, "t10k")
    np.savez_compressed(out / "evaluation.npz", image=images[:5000], labels=labels[:5000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_data(arguments.data, arguments.out, arguments.seed)
    model = train(arguments.data, arguments.epochs, arguments.batch, arguments.seed, arguments.out / "checkpoint.pt")
    export(model.to(memory_format=torch.contiguous_format), arguments.out / "model.onnx")


if __name__ == "__main__":
    main()
