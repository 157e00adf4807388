"""The peer: the solver of 4dvarnet-starter's Lorenz-63 configuration in PyTorch, restated from its published equations.

Layout and sizes are the starter's: images one pixel wide under 3 x 3 convolutions, one cost for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fourdvarnet_sizes import BATCH, COMPONENTS, GOLDEN, ITERATIONS, LENGTH, RATE, golden, windows
from torch import Tensor, nn
from torch.nn import functional
from worker import serve


class Autoencoder(nn.Module):
    """Bilinear autoencoder at one time scale; [window, component, time] in and out."""

    def __init__(self, scale: int, hidden: int = 30) -> None:
        super().__init__()
        self.scale = scale
        sizes = {
            "conv_in": (COMPONENTS, hidden),
            "conv_hidden": (hidden, hidden),
            "bilin_1": (hidden, hidden),
            "bilin_21": (hidden, hidden),
            "bilin_22": (hidden, hidden),
            "conv_out": (2 * hidden, COMPONENTS),
        }
        for name, (channels, features) in sizes.items():
            self.add_module(name, nn.Conv2d(channels, features, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct."""
        x = x.unsqueeze(-1)
        if self.scale > 1:
            x = functional.avg_pool2d(x, (self.scale, 1))
        x = self.conv_hidden(torch.relu(self.conv_in(x)))
        x = self.conv_out(torch.cat((self.bilin_1(x), self.bilin_21(x) * self.bilin_22(x)), 1))
        if self.scale > 1:
            x = functional.interpolate(x, scale_factor=(self.scale, 1), mode="bilinear", align_corners=True)
        return x.squeeze(-1)


class Starter(nn.Module):
    """Two autoencoders and a convolutional LSTM whose channels are the times."""

    def __init__(self, hidden: int = 50) -> None:
        super().__init__()
        self.priors = nn.ModuleList((Autoencoder(5), Autoencoder(1)))
        self.gates = nn.Conv2d(LENGTH + hidden, 4 * hidden, 3, padding=1)
        self.conv_out = nn.Conv2d(hidden, LENGTH, 3, padding=1)
        self.hidden = hidden

    def load(self, arrays: dict[str, Any]) -> None:
        """Take the golden weights."""
        names = {
            f"w/{name}": name.replace("prior_cost.", "").replace("grad_mod.", "")
            for name in (key.removeprefix("w/") for key in arrays if key.startswith("w/"))
        }
        self.load_state_dict({ours: torch.from_numpy(arrays[theirs]) for theirs, ours in names.items()})

    def prior_cost(self, x: Tensor) -> Tensor:
        """Sum over the scales."""
        return torch.stack([functional.mse_loss(x, prior(x)) for prior in self.priors]).sum()

    def forward(self, observations: Tensor, training: bool) -> list[Tensor]:
        """Return the iterates of windows [window, component, time]."""
        seen = observations.isfinite()
        values = observations.nan_to_num()
        x = values.clone().requires_grad_()
        zeros = torch.zeros(len(x), self.hidden, COMPONENTS, 1)
        hidden, cell, norm, iterates = zeros, zeros, None, []
        for k in range(ITERATIONS):
            cost = self.prior_cost(x) + 0.1 * functional.mse_loss(x[seen], values[seen])
            (gradient,) = torch.autograd.grad(cost, x, create_graph=training)
            norm = (gradient**2).mean().sqrt() if norm is None else norm
            image = (gradient / norm).transpose(1, 2).unsqueeze(-1)
            into, keep, out, new = self.gates(torch.cat((image, hidden), 1)).chunk(4, 1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(into) * torch.tanh(new)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            update = self.conv_out(hidden).squeeze(-1).transpose(1, 2)
            x = x - update / (k + 1) - RATE * (k + 1) / ITERATIONS * gradient
            if not training:
                x, hidden, cell, norm = (t.detach() for t in (x, hidden, cell, norm))
                x.requires_grad_()
            iterates.append(x)
        return iterates


def agreement() -> Callable[[], dict[str, float]]:
    """Largest difference from the recorded iterates of the starter itself."""
    arrays = golden()
    model = Starter()
    model.load(arrays)

    def call() -> dict[str, float]:
        iterates = model(torch.from_numpy(arrays["input"]), training=False)
        found = torch.stack(iterates).detach().numpy()
        return {"difference": float(np.abs(found - arrays[GOLDEN]).max())}

    return call


def train() -> Callable[[], None]:
    """One weight update."""
    torch.manual_seed(0)
    model = Starter()
    optimiser = torch.optim.Adam(model.parameters())
    truth, seen = (torch.from_numpy(array).transpose(1, 2).contiguous() for array in windows(BATCH))

    def call() -> None:
        optimiser.zero_grad()
        found = model(seen, training=True)[-1]
        (functional.mse_loss(found, truth) + model.prior_cost(found)).backward()
        optimiser.step()

    return call


def analyse(count: int) -> Callable[[], None]:
    """Analyse windows."""
    torch.manual_seed(0)
    model = Starter()
    seen = torch.from_numpy(windows(count)[1]).transpose(1, 2).contiguous()

    def call() -> None:
        model(seen, training=False)

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"agreement": agreement, "train": train, "analyse": analyse})
