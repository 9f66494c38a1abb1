"""PyTorch on a GPU, one trial after the other: data on the device, channels_last, Adam fused, a step one CUDA graph.

The variant is the precision: "float32", "tf32" or "bfloat16" (autocast). Without a GPU there is no graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peer import read_job, serve
from torch import Tensor, nn
from torch_loop import adam
from torch_networks import cnn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def use_precision(name: str) -> None:
    """Sets how float32 products are computed, in matrix products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != "float32"
    torch.backends.cudnn.benchmark = True


def wait() -> None:
    """Waits until the device has done everything."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def as_graph(step: Callable[[], object]) -> Callable[[], object]:
    """The step as one CUDA graph. It runs a few times before it is captured, as PyTorch's manual asks."""
    if DEVICE != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def trainer(images: Tensor, labels: Tensor, *, l2: float, learning_rate: float, batch_size: int, half: bool) -> Any:
    """A model, and a function that trains it for one epoch."""
    model = cnn().to(DEVICE, memory_format=torch.channels_last)
    optimizer = adam(model, l2, learning_rate, capturable=DEVICE == "cuda")
    batch = torch.zeros(batch_size, dtype=torch.long, device=DEVICE)
    start = [param.detach().clone() for param in model.parameters()]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()

    replay = as_graph(step)
    with torch.no_grad():  # the runs before the capture were steps too
        for param, value in zip(model.parameters(), start, strict=True):
            param.copy_(value)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def epoch() -> None:
        for indices in torch.randperm(len(images), device=DEVICE).split(batch_size):
            batch.copy_(indices)
            replay()

    return model, epoch


def main() -> None:
    job = read_job()
    use_precision(job.variant)
    images, labels = (torch.from_numpy(array).to(DEVICE) for array in job.load())
    images = images.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)
    labels = labels.long()
    options: dict[str, Any] = {"learning_rate": job.learning_rate, "batch_size": job.batch_size}
    trainers = [trainer(images, labels, l2=l2, half=job.variant == "bfloat16", **options) for l2 in job.l2]

    def train(epochs: int) -> None:
        for _, epoch in trainers:
            for _ in range(epochs):
                epoch()
        wait()

    @torch.no_grad()
    def losses() -> dict[str, Any]:
        return {"losses": [nn.functional.cross_entropy(model(images), labels).item() for model, _ in trainers]}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
