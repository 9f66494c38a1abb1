"""PyTorch: the usual training loop, one trial after the other.

The variant "channels_last" keeps images and kernels in that memory format; "compiled" does, too, with `torch.compile`.

The images wait in memory as one float tensor and batches are indexed from it, which is faster than a DataLoader.
"""

from __future__ import annotations

from typing import Any

import torch
from peer import cores, read_job, serve
from torch import nn
from torch_networks import NETWORKS


def adam(model: nn.Module, l2: float, learning_rate: float, capturable: bool = False) -> torch.optim.Optimizer:
    kernels = [param for param in model.parameters() if param.ndim > 1]
    biases = [param for param in model.parameters() if param.ndim == 1]
    # Adam adds weight_decay * kernel to the gradient: that is the gradient of l2 / 2 * sum(kernel**2).
    groups = [{"params": kernels, "weight_decay": l2}, {"params": biases}]
    return torch.optim.Adam(groups, lr=learning_rate, fused=True, capturable=capturable)


def main() -> None:
    job = read_job()
    torch.set_num_threads(len(cores()))
    memory_format = torch.channels_last if job.variant else torch.contiguous_format
    images, labels = (torch.from_numpy(array) for array in job.load())
    images = images.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=memory_format)
    labels = labels.long()
    models = [NETWORKS[job.network]().to(memory_format=memory_format) for _ in job.l2]
    calls = [torch.compile(model) for model in models] if job.variant == "compiled" else models
    optimizers = [adam(model, l2, job.learning_rate) for model, l2 in zip(models, job.l2, strict=True)]

    def train(epochs: int) -> None:
        for model, optimizer in zip(calls, optimizers, strict=True):
            for _ in range(epochs):
                for batch in torch.randperm(len(images)).split(job.batch_size):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                    loss.backward()
                    optimizer.step()

    @torch.no_grad()
    def losses() -> dict[str, Any]:
        return {"losses": [nn.functional.cross_entropy(model(images), labels).item() for model in models]}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
