"""PyTorch's side of `tools.benchmark step`: channels last, all cores, or a GPU."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from tools.benchmark import step_cases, torch_networks

_CUDA = torch.cuda.is_available()
_DEVICE = torch.device("cuda" if _CUDA else "cpu")


def prepare(name: str) -> Callable[[], object]:
    """Returns a function that runs a case once."""
    case = step_cases.CASES[name]
    model = torch_networks.create(
        case.trunk, case.size, case.embedding_dim, list(case.paths)
    )
    model = model.to(_DEVICE, memory_format=torch.channels_last)
    num = case.batch_size * (3 if case.trains else 1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num, case.size, case.size, 3), np.uint8)
    # NHWC in memory, so channels last without a copy.
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    if case.trains:
        run = _make_step(model, images.to(_DEVICE))
    else:
        run = _make_forward(model, images)

    def once() -> None:
        run()
        if _CUDA:
            torch.cuda.synchronize()

    return once


def _make_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=step_cases.LEARNING_RATE,
        weight_decay=step_cases.WEIGHT_DECAY,
    )
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        anchor, positive, negative = model(images).unflatten(0, (-1, 3)).unbind(1)
        near = (anchor - positive).square().sum(1)
        far = (anchor - negative).square().sum(1)
        functional.relu(step_cases.MARGIN + near - far).mean().backward()
        optimizer.step()

    return step


def _make_forward(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    model.eval()

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(images.to(_DEVICE)).cpu()

    return forward


if __name__ == "__main__":
    step_cases.serve(prepare)
