"""Priors: what a window's trajectory looks like, as an operator that reconstructs it (Phi in Fablet et al. 2021).

All work on one window ``[time, component]`` of standardised values and take their parameters as an argument.
"""

from __future__ import annotations

import abc
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax import Array
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.convolution import average_pool, convolve, initial_kernel, upsample
from bmi_components.fourdvarnet.lorenz import runge_kutta_4, system

__all__ = ["BilinearSettings", "OdeSettings", "Prior", "PriorSettings", "TwoScaleSettings", "make_prior"]

Positive = Annotated[int, Meta(ge=1)]
Odd = Annotated[int, Meta(ge=1)]
Parameters = dict[str, Any]


class BilinearSettings(
    msgspec.Struct, tag="bilinear", tag_field="kind", forbid_unknown_fields=True, frozen=True, kw_only=True
):
    """Bilinear autoencoder of 4dvarnet-starter, one per scale.

    Attributes
    ----------
    hidden
        Channels between the convolutions.
    width
        Taps of every convolution, odd.
    scales
        Each a factor by which time is averaged before, and interpolated after; the reconstructions are averaged.
    quadratic
        Square one convolution instead of multiplying two.
    """

    hidden: Positive = 30
    width: Odd = 3
    scales: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (5, 1)
    quadratic: bool = False

    def __post_init__(self) -> None:
        _require_odd(self.width)


class TwoScaleSettings(
    msgspec.Struct, tag="two_scale", tag_field="kind", forbid_unknown_fields=True, frozen=True, kw_only=True
):
    """Fablet's two-scale convolutional prior, whose first convolution does not see the value that it reconstructs.

    Attributes
    ----------
    hidden
        Channels of the bilinear part; the first convolution has twice as many. Fablet: 30.
    width
        Taps of the first convolution, odd; the one in the centre does not exist.
    scale
        Factor by which time is averaged in the second branch.
    """

    hidden: Positive = 30
    width: Annotated[int, Meta(ge=3)] = 11
    scale: Annotated[int, Meta(ge=2)] = 4

    def __post_init__(self) -> None:
        _require_odd(self.width)


class OdeSettings(
    msgspec.Struct, tag="ode", tag_field="kind", forbid_unknown_fields=True, frozen=True, kw_only=True
):
    """A known system as prior: each state is what the system makes of the state before it.

    Attributes
    ----------
    system
        "lorenz63" or "lorenz96".
    method
        "rk4": one classical Runge-Kutta step per time step; "diffrax": the adaptive Tsit5 of diffrax.
    """

    system: str = "lorenz63"
    method: Literal["rk4", "diffrax"] = "rk4"


PriorSettings = BilinearSettings | TwoScaleSettings | OdeSettings


def _require_odd(width: int) -> None:
    if width % 2 == 0:
        raise ValueError(f"width is {width}; an odd number of taps is needed")


class Prior(abc.ABC):
    """An operator with parameters; it holds settings, never weights."""

    @abc.abstractmethod
    def initial_parameters(self, key: Array, dtype: jnp.dtype) -> Parameters:
        """Draw parameters."""

    @abc.abstractmethod
    def reconstructions(self, parameters: Parameters, x: Array) -> list[Array]:
        """Reconstruct a window ``[time, component]``, once per member; all members' residuals cost."""

    def reconstruct(self, parameters: Parameters, x: Array) -> Array:
        """Phi(x): the mean of the reconstructions, ``[time, component]``."""
        members = self.reconstructions(parameters, x)
        return members[0] if len(members) == 1 else sum(members[1:], members[0]) / len(members)

    def cost(self, parameters: Parameters, x: Array) -> Array:
        """Sum over the members of the mean squared residual of a window."""
        residuals = [jnp.mean((x - member) ** 2) for member in self.reconstructions(parameters, x)]
        return sum(residuals[1:], residuals[0])


class BilinearPrior(Prior):
    """See `BilinearSettings`."""

    def __init__(self, settings: BilinearSettings, components: int) -> None:
        self.settings, self.components = settings, components

    def initial_parameters(self, key: Array, dtype: jnp.dtype) -> Parameters:
        """Draw parameters, one set per scale."""
        settings = self.settings
        width, hidden = settings.width, settings.hidden
        sizes = {
            "conv_in": (self.components, hidden),
            "conv_hidden": (hidden, hidden),
            "linear": (hidden, hidden),
            "factor_1": (hidden, hidden),
            **({} if settings.quadratic else {"factor_2": (hidden, hidden)}),
            "conv_out": (2 * hidden, self.components),
        }
        keys = iter(jax.random.split(key, len(settings.scales) * len(sizes)))
        return {
            f"scale_{scale}": {
                name: {
                    "kernel": initial_kernel(next(keys), width, *channels, dtype),
                    "bias": jnp.zeros(channels[1], dtype),
                }
                for name, channels in sizes.items()
            }
            for scale in settings.scales
        }

    def reconstructions(self, parameters: Parameters, x: Array) -> list[Array]:
        """One reconstruction per scale."""
        return [self._member(parameters[f"scale_{scale}"], x, scale) for scale in self.settings.scales]

    def _member(self, layers: Parameters, x: Array, scale: int) -> Array:
        hidden = self.settings.hidden
        inner = convolve(average_pool(x, scale), **layers["conv_in"])
        inner = convolve(jax.nn.relu(inner), **layers["conv_hidden"])
        # the convolutions of the same input are one matrix product
        names = ["linear", "factor_1"] if self.settings.quadratic else ["linear", "factor_1", "factor_2"]
        kernel = jnp.concatenate([layers[name]["kernel"] for name in names], axis=-1)
        bias = jnp.concatenate([layers[name]["bias"] for name in names])
        parts = convolve(inner, kernel, bias)
        product = parts[:, hidden : 2 * hidden] * parts[:, -hidden:]
        combined = jnp.concatenate((parts[:, :hidden], product), axis=-1)
        return upsample(convolve(combined, **layers["conv_out"]), scale)


class TwoScalePrior(Prior):
    """See `TwoScaleSettings`."""

    def __init__(self, settings: TwoScaleSettings, components: int) -> None:
        self.settings, self.components = settings, components

    def initial_parameters(self, key: Array, dtype: jnp.dtype) -> Parameters:
        """Draw parameters of both branches; there are no biases, as in the original."""
        settings, n = self.settings, self.components
        hidden = settings.hidden
        sizes = {
            "conv_in": (settings.width - 1, n, 2 * hidden),
            "conv_hidden": (1, 2 * hidden, hidden),
            "bilinear": (1, hidden, 3 * hidden),
        }
        branches = {
            "fine": sizes | {"conv_out": (1, 2 * hidden, n)},
            "coarse": sizes
            | {"conv_out": (1, 2 * hidden, hidden), "spread": (1, hidden, settings.scale * n)},
        }
        keys = iter(jax.random.split(key, 9))
        return {
            branch: {name: initial_kernel(next(keys), *size, dtype) for name, size in layers.items()}
            for branch, layers in branches.items()
        }

    def reconstructions(self, parameters: Parameters, x: Array) -> list[Array]:
        """The sum of the two branches."""
        coarse = self._branch(parameters["coarse"], average_pool(x, self.settings.scale))
        # a transposed convolution whose stride is its width: each coarse position makes `scale` fine ones
        spread = convolve(coarse, parameters["coarse"]["spread"]).reshape(x.shape)
        return [self._branch(parameters["fine"], x) + spread]

    def _branch(self, layers: Parameters, x: Array) -> Array:
        hidden = self.settings.hidden
        inner = convolve(jax.nn.relu(convolve(x, layers["conv_in"])), layers["conv_hidden"])
        parts = convolve(inner, layers["bilinear"])
        product = parts[:, hidden : 2 * hidden] * parts[:, 2 * hidden :]
        return convolve(jnp.concatenate((parts[:, :hidden], product), axis=-1), layers["conv_out"])


class OdePrior(Prior):
    """See `OdeSettings`; it has no parameters to learn."""

    def __init__(self, settings: OdeSettings, mean: NDArray[Any], std: NDArray[Any]) -> None:
        self.settings, self.mean, self.std = settings, mean, std
        self.system = system(settings.system)
        if len(self.system.components) != mean.size:
            raise ConfigurationError(
                f"prior: {settings.system} has {len(self.system.components)} components; the model has {mean.size}"
            )

    def initial_parameters(self, key: Array, dtype: jnp.dtype) -> Parameters:
        """Nothing."""
        return {}

    def reconstructions(self, parameters: Parameters, x: Array) -> list[Array]:
        """Each state from the one before it; the first is taken as it is."""
        mean, std = jnp.asarray(self.mean, x.dtype), jnp.asarray(self.std, x.dtype)
        states = x[:-1] * std + mean
        advanced = (self._diffrax(states) if self.settings.method == "diffrax" else self._rk4(states)) - mean
        return [jnp.concatenate((x[:1], advanced / std))]

    def _rk4(self, states: Array) -> Array:
        advanced: Array = runge_kutta_4(self.system.tendency, states, self.system.time_step, jnp)
        return advanced

    def _diffrax(self, states: Array) -> Array:
        try:
            import diffrax
        except ImportError as error:
            raise ConfigurationError(
                "prior.method: diffrax is not installed; install bmi_components[assimilation] or choose rk4"
            ) from error

        def advance(state: Array) -> Array:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda time, value, arguments: self.system.tendency(value, jnp)),
                diffrax.Tsit5(),
                t0=0.0,
                t1=self.system.time_step,
                dt0=self.system.time_step,
                y0=state,
                stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
                # second derivatives are needed: the solver differentiates the cost, training the solver
                adjoint=diffrax.DirectAdjoint(),
                max_steps=16,
            )
            end: Array = solution.ys[0]
            return end

        return jax.vmap(advance)(states)


def make_prior(settings: PriorSettings, mean: NDArray[Any], std: NDArray[Any]) -> Prior:
    """Make the prior that the settings describe.

    Parameters
    ----------
    settings
        Which and how large.
    mean, std
        Standardisation of the components, ``[component]``.

    Raises
    ------
    ConfigurationError
        If a known system has other components.
    """
    if isinstance(settings, OdeSettings):
        return OdePrior(settings, np.asarray(mean), np.asarray(std))
    if isinstance(settings, TwoScaleSettings):
        return TwoScalePrior(settings, np.size(mean))
    return BilinearPrior(settings, np.size(mean))


def coarsest(settings: PriorSettings) -> int:
    """Number of steps of which a window must be a multiple."""
    if isinstance(settings, TwoScaleSettings):
        return settings.scale
    return int(np.lcm.reduce(settings.scales)) if isinstance(settings, BilinearSettings) else 1
