"""A short training of any classifier on images in memory, nothing kept but the weights: for comparisons.

Source: AdamW [LoshchilovHutter2019], its rate falling as a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from stablenet.enforcement import enforce
from stablenet.images.labeled import LabeledImages


def train_plainly(
    network: nn.Module,
    images: LabeledImages,
    *,
    steps: int,
    generator: torch.Generator,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
    temperature: float = 1.0,
) -> Iterator[float]:
    """Train in place, yielding the loss of each step; evaluation mode and certified constraints when all are done.

    Parameters
    ----------
    network : (batch, channels, height, width) float32 in [0, 1] to logits.
    generator : of the batches, drawn without replacement until all images were seen.
    weight_decay : of AdamW.
    temperature : logits are divided by it in the cross-entropy.

    Raises
    ------
    ValueError : steps or batch_size below 1, a rate or a temperature that is not positive, a loss that is not finite.
    """
    if not (steps >= 1 and batch_size >= 1 and learning_rate > 0 and temperature > 0 and weight_decay >= 0):
        raise ValueError(
            "steps and batch_size must be at least 1, learning_rate and temperature positive, weight_decay not negative; got "
            f"{steps}, {batch_size}, {learning_rate}, {temperature}, {weight_decay}"
        )
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    device = next(network.parameters()).device
    left = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(left) < min(batch_size, len(images)):
            left = torch.cat([left, torch.randperm(len(images), generator=generator)])
        drawn, left = left[:batch_size], left[batch_size:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        logits = network((images.images[drawn].float() / 255).to(device))
        loss = functional.cross_entropy(logits / temperature, images.labels[drawn].to(device))
        if not torch.isfinite(loss):
            raise ValueError(f"the loss became {loss.item()} at step {step}: take a learning_rate below {learning_rate}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        enforce(network)
        yield float(loss.detach())
    network.eval()
    enforce(network, certified=True)
