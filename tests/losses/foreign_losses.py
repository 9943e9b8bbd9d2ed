"""Losses of pytorch-metric-learning; run by its own Python, prints JSON."""

import json
import math
import sys

import numpy as np
from pytorch_metric_learning import losses
import torch


def main():
    with np.load(sys.argv[1]) as file:
        rows, vectors = (torch.tensor(file[name]) for name in ("rows", "vectors"))
        labels = torch.tensor(file["labels"])
    num_classes, dim = vectors.shape
    theirs = {
        "normface": losses.NormalizedSoftmaxLoss(num_classes, dim, temperature=1 / 20),
        "cosface": losses.CosFaceLoss(num_classes, dim, margin=0.35, scale=30),
        # Their margin is in degrees.
        "arcface": losses.ArcFaceLoss(
            num_classes, dim, margin=math.degrees(0.5), scale=30
        ),
        "proxy_anchor": losses.ProxyAnchorLoss(num_classes, dim, margin=0.1, alpha=32),
    }
    values = {}
    for name, loss in theirs.items():
        loss.double()
        (weights,) = loss.parameters()
        with torch.no_grad():
            weights.copy_(vectors if weights.shape == vectors.shape else vectors.T)
            values[name] = float(loss(rows, labels))
    print(json.dumps(values))


if __name__ == "__main__":
    main()
