"""The learned step: a convolutional LSTM over the solver's iterations turns gradients into updates."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jax import Array
from msgspec import Meta

from bmi_components.fourdvarnet.convolution import convolve, initial_kernel

__all__ = ["Memory", "ModulationSettings", "initial_memory", "initial_parameters", "modulate"]

Positive = Annotated[int, Meta(ge=1)]


class ModulationSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of the convolutional LSTM.

    Attributes
    ----------
    hidden
        Channels of its hidden state and of its cell.
    width
        Taps of the convolution of the gates, odd.
    output_width
        Taps of the convolution that reads the update out of the hidden state, odd.
    positions
        What it convolves over: "time", with the components as channels (Fablet), or "component", with the times as
        channels (4dvarnet-starter's Lorenz-63).
    patch
        With "time": so many successive steps share one position, laid side by side as channels. The state is as many
        times shorter, and the network as many times faster and wider in sight.
    """

    hidden: Positive = 25
    width: Positive = 5
    output_width: Positive = 1
    positions: Literal["time", "component"] = "time"
    patch: Positive = 1

    def __post_init__(self) -> None:
        for name in ("width", "output_width"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} is {getattr(self, name)}; an odd number of taps is needed")
        if self.positions == "component" and self.patch > 1:
            raise ValueError("patch is for positions: time")


class Memory(NamedTuple):
    """State of the convolutional LSTM of one window, each ``[position, hidden]``."""

    hidden: Array
    cell: Array


def _arrange(settings: ModulationSettings, x: Array) -> Array:
    """Lay a window ``[time, component]`` out as ``[position, channel]``."""
    return x.T if settings.positions == "component" else x.reshape(x.shape[0] // settings.patch, -1)


def initial_parameters(
    settings: ModulationSettings, length: int, components: int, key: Array, dtype: jnp.dtype
) -> dict[str, Any]:
    """Draw parameters for windows of ``length`` steps; the first updates are small."""
    channels = length if settings.positions == "component" else components * settings.patch
    first, second = jax.random.split(key)
    hidden = settings.hidden
    return {
        "gates": {
            "kernel": initial_kernel(first, settings.width, channels + hidden, 4 * hidden, dtype),
            "bias": jnp.zeros(4 * hidden, dtype),
        },
        "conv_out": {"kernel": initial_kernel(second, settings.output_width, hidden, channels, dtype)}
        | {"bias": jnp.zeros(channels, dtype)},
    }


def initial_memory(settings: ModulationSettings, x: Array) -> Memory:
    """Return the state before the first iteration: zeros."""
    arranged = _arrange(settings, x)
    zeros = jnp.zeros((arranged.shape[0], settings.hidden), x.dtype)
    return Memory(zeros, zeros)


def modulate(
    settings: ModulationSettings, parameters: dict[str, Any], gradient: Array, memory: Memory
) -> tuple[Array, Memory]:
    """Turn a normalised gradient ``[time, component]`` into an update of the same shape, and remember.

    The gates come in the order input, forget, output, candidate of one convolution of gradient and hidden state.
    """
    x = jnp.concatenate((_arrange(settings, gradient), memory.hidden), axis=-1)
    gates = convolve(x, **parameters["gates"])
    size = settings.hidden
    opened = jax.nn.sigmoid(gates[:, : 3 * size])
    candidate = jnp.tanh(gates[:, 3 * size :])
    cell = opened[:, size : 2 * size] * memory.cell + opened[:, :size] * candidate
    hidden = opened[:, 2 * size :] * jnp.tanh(cell)
    update = convolve(hidden, **parameters["conv_out"])
    update = update.T if settings.positions == "component" else update.reshape(gradient.shape)
    return update, Memory(hidden, cell)
