"""PyTorch: the usual training loop, one trial after the other. Variant "channels_last": in that memory format.

The data waits in memory as a float tensor and batches are indexed from it, which is faster than a DataLoader.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from peer import Job, serve
from torch import nn


def cnn() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 10),
    )
    for name, param in model.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(param)
        else:
            nn.init.zeros_(param)
    return model


def adam(model: nn.Module, l2: float, learning_rate: float) -> torch.optim.Optimizer:
    params = dict(model.named_parameters())
    kernels = [param for name, param in params.items() if name.endswith("weight")]
    biases = [param for name, param in params.items() if name.endswith("bias")]
    # Adam's weight_decay is added to the gradient: it is the gradient of l2 / 2 * ||kernel||^2.
    groups = [{"params": kernels, "weight_decay": l2}, {"params": biases}]
    return torch.optim.Adam(groups, lr=learning_rate, fused=True)


def prepare(job: Job) -> Callable[[], dict[str, Any]]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    memory_format = torch.channels_last if job.variant == "channels_last" else torch.contiguous_format
    images = torch.from_numpy(job.images).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=memory_format)
    labels = torch.from_numpy(job.labels).long()
    models = [cnn().to(memory_format=memory_format) for _ in job.l2]
    optimizers = [adam(model, l2, job.learning_rate) for model, l2 in zip(models, job.l2, strict=True)]
    loss_of = nn.CrossEntropyLoss()

    def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        total = torch.zeros(())
        for batch in torch.randperm(len(images)).split(job.batch_size):
            optimizer.zero_grad()
            loss = loss_of(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        return total.item() / len(images)

    def train() -> dict[str, Any]:
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            for _ in range(job.epochs):
                loss = train_epoch(model, optimizer)
            losses.append(loss)
        return {"losses": losses}

    return train


if __name__ == "__main__":
    serve(prepare)
