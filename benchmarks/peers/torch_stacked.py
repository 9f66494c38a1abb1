"""PyTorch on a GPU, all trials in one step: stacked parameters, one stacked Adam, compiled, and one CUDA graph.

The variant is a way to compute and a precision, such as "columns bfloat16". The ways:

func: `torch.func`: the gradient of one trial, mapped over all of them.
grouped: one convolution with a group per trial, as HFTA does (Wang et al., MLSys 2021).
columns: each convolution is columns and one `baddbmm`, as l2jax does it elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from peer import read_job, serve
from torch import Tensor
from torch.nn import functional as F
from torch_graph import DEVICE, as_graph, use_precision, wait
from torch_networks import cnn

Params = dict[str, Tensor]  # each (T, ...); named as those of `cnn()`
Logits = Callable[[Params, Tensor], Tensor]


def one_trial(params: Params, images: Tensor) -> Tensor:
    """Images (B, 1, 28, 28) to logits (B, 10), with the parameters of one trial."""
    x = F.max_pool2d(F.relu(F.conv2d(images, params["0.weight"], params["0.bias"])), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, params["3.weight"], params["3.bias"])), 2)
    return F.linear(x.flatten(1), params["7.weight"], params["7.bias"])


def grouped(params: Params, images: Tensor) -> Tensor:
    """Images (T, B, 1, 28, 28) to logits (T, B, 10): a trial is a group of channels."""
    num_trials, batch = images.shape[:2]
    x = images.movedim(0, 1).flatten(1, 2)
    for layer in ("0", "3"):
        weight, bias = params[f"{layer}.weight"].flatten(0, 1), params[f"{layer}.bias"].flatten()
        x = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, groups=num_trials)), 2)
    return dense(params, x.reshape(batch, num_trials, -1).movedim(1, 0))


def columns(params: Params, images: Tensor) -> Tensor:
    """Images (T, B, 1, 28, 28) to logits (T, B, 10): a convolution is one matrix product per trial."""
    num_trials, batch = images.shape[:2]
    x = images
    for layer in ("0", "3"):
        weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
        windows = x.unfold(3, 3, 1).unfold(4, 3, 1).permute(0, 1, 3, 4, 2, 5, 6)  # (T, B, h, w, C, 3, 3)
        rows, cols = windows.shape[2:4]
        matrix = windows.reshape(num_trials, batch * rows * cols, -1)
        out = torch.baddbmm(bias[:, None], matrix, weight.flatten(2).transpose(1, 2))
        out = out.reshape(num_trials * batch, rows, cols, -1).permute(0, 3, 1, 2)
        x = F.max_pool2d(F.relu(out), 2).unflatten(0, (num_trials, batch))
    return dense(params, x.flatten(2))


def dense(params: Params, x: Tensor) -> Tensor:
    return torch.baddbmm(params["7.bias"][:, None], x, params["7.weight"].transpose(1, 2))


WAYS: dict[str, Logits] = {"func": torch.func.vmap(one_trial), "grouped": grouped, "columns": columns}


def cross_entropy(logits_of: Logits, params: Params, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean cross-entropy of each trial, (T,)."""
    params = {name: param.to(dtype) for name, param in params.items()}
    logits = logits_of(params, images.to(dtype)).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").reshape(labels.shape).mean(1)


def func_gradients(params: Params, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Params:
    """The gradients of each trial by `torch.func`, as its manual shows it."""

    def loss(params: Params, images: Tensor, labels: Tensor) -> Tensor:
        params = {name: param.to(dtype) for name, param in params.items()}
        return F.cross_entropy(one_trial(params, images.to(dtype)).float(), labels)

    return torch.func.vmap(torch.func.grad(loss))(params, images, labels)


def summed_gradients(logits_of: Logits, params: Params, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Params:
    """The gradients of each trial: those of the sum, as no trial has a part in another's loss."""

    def loss(params: Params) -> Tensor:
        return cross_entropy(logits_of, params, images, labels, dtype).sum()

    return torch.func.grad(loss)(params)


def adam(param: Tensor, grad: Tensor, m: Tensor, v: Tensor, count: Tensor, l2: Tensor, rate: float) -> None:
    """Adam's update of stacked parameters in place, with the gradient of the penalty for kernels."""
    if param.ndim > 2:
        grad = grad + l2.reshape(-1, *[1] * (param.ndim - 1)) * param
    m.lerp_(grad, 0.1)
    v.lerp_(grad * grad, 0.001)
    param.sub_(rate * (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)).sqrt() + 1e-8))


def main() -> None:
    job = read_job()
    way, precision = job.variant.split()
    use_precision(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    images, labels = (torch.from_numpy(array).to(DEVICE) for array in job.load())
    images, labels = images.permute(0, 3, 1, 2).float().div(255), labels.long()
    l2 = torch.tensor(job.l2, device=DEVICE)

    params, _ = torch.func.stack_module_state([cnn() for _ in job.l2])
    params = {name: param.detach().to(DEVICE) for name, param in params.items()}
    first = {name: param.clone() for name, param in params.items()}
    moments = {name: (torch.zeros_like(param), torch.zeros_like(param)) for name, param in params.items()}
    count = torch.zeros((), device=DEVICE)
    batch = torch.zeros(len(l2), job.batch_size, dtype=torch.long, device=DEVICE)
    gradients = func_gradients if way == "func" else functools.partial(summed_gradients, WAYS[way])

    @torch.compile
    def step() -> None:
        grads = gradients(params, images[batch], labels[batch], dtype)
        count.add_(1)
        for name, param in params.items():
            adam(param, grads[name], *moments[name], count, l2, job.learning_rate)

    with torch.no_grad():
        replay = as_graph(step)
        for name, param in params.items():  # the runs before the capture were steps too
            param.copy_(first[name])
            for moment in moments[name]:
                moment.zero_()
        count.zero_()

    @torch.no_grad()
    def train(epochs: int) -> None:
        for _ in range(epochs):
            orders = torch.rand(len(l2), len(images), device=DEVICE).argsort(1)
            for indices in orders.split(job.batch_size, 1):
                batch.copy_(indices)
                replay()
        wait()

    @torch.no_grad()
    def losses() -> dict[str, Any]:
        sums = torch.zeros(len(l2), device=DEVICE)
        for indices in torch.arange(len(images), device=DEVICE).split(job.batch_size):
            everyone = indices.expand(len(l2), -1)
            sums += cross_entropy(WAYS[way], params, images[everyone], labels[everyone], dtype) * len(indices)
        return {"losses": (sums / len(images)).tolist()}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
