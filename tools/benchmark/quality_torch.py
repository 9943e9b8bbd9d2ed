"""PyTorch's side of `tools.benchmark quality`: one loss of pytorch-metric-learning.

The network is that of the demo, and a batch has four images of each of 48 emoji.
"""

import json
import pathlib
import sys
import time

import numpy as np
from pytorch_metric_learning import losses, miners
import torch
from torch.nn import functional
import tqdm

from tools.benchmark import torch_networks

_LEARNING_RATE, _WEIGHT_DECAY, _PROXY_LEARNING_RATE = 3e-3, 0.05, 1e-2
_SHIFT, _BRIGHTNESS = 1, 0.1


class Loss(torch.nn.Module):
    """A loss of the library with the miner that its authors use."""

    def __init__(self, name: str, num_classes: int, embedding_dim: int):
        """Creates the loss by name; some have parameters of their own."""
        super().__init__()
        self._mine = None
        if name == "supcon":
            self.loss = losses.SupConLoss(temperature=0.1)
        elif name == "multi_similarity":
            self.loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
            self._mine = miners.MultiSimilarityMiner(epsilon=0.1)
        elif name == "proxy_anchor":
            self.loss = losses.ProxyAnchorLoss(
                num_classes, embedding_dim, margin=0.1, alpha=32
            )
        elif name == "triplet":
            self.loss = losses.TripletMarginLoss(margin=0.2)
            self._mine = miners.TripletMarginMiner(
                margin=0.2, type_of_triplets="semihard"
            )
        else:
            raise ValueError(f"{name} is not a loss of this benchmark.")

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the loss of a batch."""
        mined = None if self._mine is None else self._mine(embeddings, labels)
        return self.loss(embeddings, labels, mined)


def draw_batch(
    rows: list[np.ndarray], num_classes: int, per_class: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns rows of random classes, the same number of each, without repeats."""
    classes = rng.choice(len(rows), num_classes, replace=False)
    return np.concatenate(
        [rng.choice(rows[i], per_class, replace=False) for i in classes]
    )


def augment(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shifts, mirrors and brightens uint8 `[B, 3, H, W]`, each image for itself."""
    size = images.shape[-1]
    padded = functional.pad(images.float(), (_SHIFT,) * 4, mode="replicate")
    pieces = []
    for image in padded:
        y, x = rng.integers(0, 2 * _SHIFT + 1, 2)
        piece = image[:, y : y + size, x : x + size]
        piece = piece.flip(-1) if rng.random() < 0.5 else piece
        pieces.append(piece * rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS))
    augmented = torch.stack(pieces).clamp(0, 255)
    return augmented.contiguous(memory_format=torch.channels_last)


def train(case: dict, images: np.ndarray, labels: np.ndarray) -> torch.nn.Module:
    """Trains a network from random weights and returns it.

    Args:
      case: Loss, seed, steps, sizes of a batch and options of the network.
      images: `[N, S, S, 3]` uint8.
      labels: `[N]` int from 0, the class of each.
    """
    torch.manual_seed(case["seed"])
    rng = np.random.default_rng(case["seed"])
    model = torch_networks.create(
        "convnet", images.shape[1], case["dim"], case["paths"]
    )
    model = model.to(memory_format=torch.channels_last).train()
    loss = Loss(case["loss"], int(labels.max()) + 1, case["dim"])
    groups = [{"params": model.parameters()}]
    rates = [_LEARNING_RATE]
    if loss_parameters := list(loss.parameters()):
        groups.append({"params": loss_parameters})
        rates.append(_PROXY_LEARNING_RATE)
    optimizer = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=case["steps"]
    )
    rows = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    rows = [x for x in rows if len(x) >= case["per_class"]]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    classes = torch.from_numpy(labels)
    for _ in tqdm.trange(case["steps"], desc=f"{case['loss']} {case['seed']}"):
        batch = draw_batch(rows, case["num_classes"], case["per_class"], rng)
        optimizer.zero_grad(set_to_none=True)
        loss(model(augment(pixels[batch], rng)), classes[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def embed(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Returns embeddings `[N, D]` of uint8 images `[N, S, S, 3]`."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return np.concatenate([model(x).numpy() for x in pixels.split(256)])


def main() -> None:
    """Trains as a JSON object in the arguments says, and writes embeddings and time."""
    case = json.loads(sys.argv[1])
    with np.load(case["images"]) as file:
        data = {name: file[name] for name in ("train", "labels", "test")}
    start = time.perf_counter()
    model = train(case, data["train"], data["labels"])
    seconds = time.perf_counter() - start
    out = pathlib.Path(case["out"])
    scratch = out.with_suffix(".part.npz")
    embeddings = embed(model, data["test"])
    np.savez(scratch, case=sys.argv[1], embeddings=embeddings, seconds=seconds)
    scratch.replace(out)


if __name__ == "__main__":
    main()
