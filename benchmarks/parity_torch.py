"""Does l2jax train what PyTorch trains? A network with batch norm under L2 and L1, step by step.

    python benchmarks/parity_torch.py

Both start from the same parameters and see the same batches of mnist_small, with SGD. PyTorch's gradient of |0| is 0,
as here. Its running variance is that of a sample (n - 1), Flax' that of the batch (n): the table compares what it
would be with n.
"""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import l2jax
from l2jax.arguments import Arguments
from l2jax.network.model import make_network
from l2jax.network.network import by_path
from l2jax.trial import train
from l2jax.trial.optimizer import Optimizer
from l2jax.trial.penalty import default_penalty

STEPS, BATCH_SIZE, LEARNING_RATE, L2, L1 = 20, 32, 0.01, 0.01, 1e-3
FILTERS, MOMENTUM, TOLERANCE = 8, 0.9, 2e-5
FLIP = 2 * LEARNING_RATE * L1
"""A value that is 0 but for rounding may get L1's gradient with either sign: then it differs by this much."""


class Net(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, FILTERS, (3, 3), padding="VALID", use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(FILTERS, momentum=MOMENTUM, rngs=rngs)
        self.dense = nnx.Linear(26 * 26 * FILTERS, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(images)))
        return self.dense(x.reshape(len(x), -1))


class TorchNet(torch.nn.Module):
    def __init__(self, arrays: dict[str, np.ndarray]):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, FILTERS, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(FILTERS, momentum=1 - MOMENTUM)
        self.dense = torch.nn.Linear(26 * 26 * FILTERS, 10)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(arrays["conv/kernel"].transpose(3, 2, 0, 1)))
            self.dense.weight.copy_(torch.tensor(arrays["dense/kernel"].T))
            self.dense.bias.copy_(torch.tensor(arrays["dense/bias"]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(images)))
        return self.dense(x.permute(0, 2, 3, 1).flatten(1))  # in Flax' order: rows, columns, channels


def train_l2jax(dataset: l2jax.Dataset) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Arrays before and after training, and the objective before each step."""
    network = make_network(Net, dataset.images.shape[1:])
    optimizer = Optimizer(optax.sgd, Arguments(("learning_rate",)))
    values = {"l2": L2, "l1": L1, "learning_rate": LEARNING_RATE, "weight_decay": 0, "label_smoothing": 0}
    scalars = {name: jnp.float32(value) for name, value in values.items()}
    trial = train.Trial(scalars, seed=jnp.uint32(0), split_index=jnp.int32(0))
    state = train.init(trial, network=network, optimizer=optimizer)
    penalty = default_penalty(state.params, "*", with_l1=True)
    functions = {"network": network, "optimizer": optimizer, "penalty": penalty}
    one_step = jax.jit(functools.partial(train.train_epoch, **functions, batch_size=BATCH_SIZE, sizes=(BATCH_SIZE,)))

    def arrays() -> dict[str, np.ndarray]:
        return {path: np.array(leaf) for path, leaf in (by_path(state.params) | by_path(state.model_state)).items()}

    before, objectives = arrays(), []
    for start in range(0, STEPS * BATCH_SIZE, BATCH_SIZE):
        batch = np.arange(start, start + BATCH_SIZE, dtype=np.int32)  # an epoch of one batch is a step
        examples = train.Examples(dataset.images, dataset.labels, dataset.labels[None], np.tile(batch, (3, 1, 1)))
        state, means = one_step(state, trial, 1, examples)
        objectives.append(float(means.objective))
    return before, arrays(), np.array(objectives)


def train_torch(dataset: l2jax.Dataset, before: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays after training, in Flax' form, and the objective before each step."""
    net, objectives = TorchNet(before), []
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE)
    for start in range(0, STEPS * BATCH_SIZE, BATCH_SIZE):
        images = torch.tensor(dataset.images[start : start + BATCH_SIZE]).permute(0, 3, 1, 2).float() / 255
        labels = torch.tensor(dataset.labels[start : start + BATCH_SIZE].astype(np.int64))
        kernels = net.conv.weight, net.dense.weight
        penalty = sum(L2 / 2 * (kernel**2).sum() + L1 * kernel.abs().sum() for kernel in kernels)
        objective = torch.nn.functional.cross_entropy(net(images), labels) + penalty
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        objectives.append(objective.item())
    num_values, decayed = BATCH_SIZE * 26 * 26, MOMENTUM**STEPS
    variance = (net.norm.running_var.numpy() - decayed) * (num_values - 1) / num_values + decayed
    after = {
        "conv/kernel": net.conv.weight.detach().numpy().transpose(2, 3, 1, 0),
        "dense/kernel": net.dense.weight.detach().numpy().T,
        "dense/bias": net.dense.bias.detach().numpy(),
        "norm/scale": net.norm.weight.detach().numpy(),
        "norm/bias": net.norm.bias.detach().numpy(),
        "norm/mean": net.norm.running_mean.numpy(),
        "norm/var": variance,
    }
    return after, np.array(objectives)


def main() -> int:
    dataset = l2jax.load_dataset("mnist_small")
    before, ours, our_objectives = train_l2jax(dataset)
    theirs, their_objectives = train_torch(dataset, before)
    pairs = {"objective": (our_objectives, their_objectives)} | {path: (ours[path], theirs[path]) for path in theirs}
    print(f"{STEPS} steps: largest difference as a part of the largest value, without those of one flip of L1's sign")
    largest = 0.0
    for name, (our_values, their_values) in pairs.items():
        difference = np.abs(our_values - their_values)
        flipped = np.isclose(difference, FLIP, rtol=0.1) if name.endswith("kernel") else np.zeros_like(difference, bool)
        part = np.where(flipped, 0, difference).max() / np.abs(their_values).max()
        largest = max(largest, part)
        print(f"{name:14} {part:.1e}   {flipped.sum()} of {flipped.size} values flipped")
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
