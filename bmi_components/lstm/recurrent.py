"""What every streamflow network is: weather and catchment in, runoff out, one pure step at a time."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bmi_components.errors import ValueShapeError
from bmi_components.lstm.heads import HEADS, Distribution
from bmi_components.lstm.layers import Layers

__all__ = ["RecurrentNetwork", "Scaling", "State", "Statistics"]

State = tuple[Tensor, ...]
"""What a network remembers, one tensor ``[catchment, ...]`` for each of its ``state_names``."""


class Statistics(NamedTuple):
    """Names of quantities and what standardises them: ``(value - mean) / std``; float64 ``[name]``."""

    names: tuple[str, ...]
    mean: Tensor
    std: Tensor

    @classmethod
    def of(
        cls, names: Iterable[str], normalisation: Mapping[str, Mapping[str, float]], prefix: str = ""
    ) -> Statistics:
        """Look the names up, each under ``prefix + name``."""
        names = tuple(names)
        mean, std = (
            torch.tensor([normalisation[prefix + n][key] for n in names], dtype=torch.float64)
            for key in ("mean", "std")
        )
        return cls(names, mean, std)


class Scaling(NamedTuple):
    """How a network's standardised result becomes runoff.

    Attributes
    ----------
    mean, std
        Of the target, in its units.
    attribute
        Attribute by which the target was divided before it was standardised; None: it was not.
    not_negative
        Whether runoff below zero is cut off outside training.
    """

    mean: float
    std: float
    attribute: str | None = None
    not_negative: bool = False


class RecurrentNetwork(nn.Module, abc.ABC):
    """A streamflow network that is stepped: its memory is passed in and returned, never kept.

    Tensors are in the type and on the device of the module; forcing and attributes come in physical units.

    Parameters
    ----------
    forcings, attributes
        What the network reads, in order, and how it is standardised.
    scaling
        Of the result.
    head
        Name in `bmi_components.lstm.heads.HEADS`, or "umal".
    attribute_layers
        Layers that the standardised attributes go through first.

    Attributes
    ----------
    state_names
        Names of the tensors of the state.
    feedback
        Steps by which the network's own (or the observed) runoff is fed back; 0: it is not.
    """

    state_names: tuple[str, ...] = ()
    feedback: int = 0

    forcing_mean: Tensor
    forcing_std: Tensor
    attribute_mean: Tensor
    attribute_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        forcings: Statistics,
        attributes: Statistics,
        scaling: Scaling,
        head: str = "linear",
        attribute_layers: Layers | None = None,
    ) -> None:
        super().__init__()
        self.forcing_names = forcings.names
        self.attribute_names = attributes.names
        self.scaling = scaling
        self.head = head
        self.attribute_layers = Layers() if attribute_layers is None else attribute_layers
        self._scale_column = None if scaling.attribute is None else attributes.names.index(scaling.attribute)
        target = Statistics(("target",), *(torch.tensor(x, dtype=torch.float64) for x in scaling[:2]))
        for label, statistics in (("forcing", forcings), ("attribute", attributes), ("target", target)):
            self.register_buffer(f"{label}_mean", statistics.mean.clone(), persistent=False)
            self.register_buffer(f"{label}_std", statistics.std.clone(), persistent=False)

    @abc.abstractmethod
    def initial_state(self, catchments: int) -> State:
        """Return the empty memory."""

    @abc.abstractmethod
    def step(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance by one step without side effects.

        Parameters
        ----------
        state
            As from `initial_state` or the last call.
        forcing
            ``[catchment, forcing]`` of the step, in physical units.
        static
            From `static_features`.
        feedback
            For a network with ``feedback`` only: the runoff observed ``feedback`` steps ago, ``[catchment]`` in the
            target's units, NaN where it is not known; the network's own runoff stands in for it. None: nowhere known.

        Returns
        -------
        state, raw
            The new state, and the last layer's result ``[catchment, output]`` for `runoff`.
        """

    def static_features(self, attributes: Tensor) -> Tensor:
        """Return what a catchment's attributes ``[catchment, attribute]`` tell the network, ``[catchment, feature]``.

        It does not change in time: compute it once.

        Raises
        ------
        ValueShapeError
            If there are not as many attributes as the network reads.
        """
        self._check("attributes", attributes, self.attribute_names, 2)
        features: Tensor = self.attribute_layers((attributes - self.attribute_mean) / self.attribute_std)
        return features

    def standardise(self, forcing: Tensor) -> Tensor:
        """Standardise forcing ``[..., forcing]``."""
        return (forcing - self.forcing_mean) / self.forcing_std

    def distribution(self, raw: Tensor) -> Distribution:
        """Return mean and standard deviation ``[...]`` of the standardised runoff, of ``raw[..., output]``."""
        return HEADS[self.head](raw)

    def runoff(self, raw: Tensor, attributes: Tensor) -> Distribution:
        """Turn what `step` or `run` gave into runoff.

        Parameters
        ----------
        raw
            ``[..., catchment, output]``.
        attributes
            ``[catchment, attribute]``, in physical units.

        Returns
        -------
        mean, spread
            In the target's units, ``[..., catchment]``; ``spread`` is the standard deviation of the predicted
            distribution, None for a network that predicts a single value.
        """
        mean, spread = self.distribution(raw)
        scale, offset = self.runoff_scaling(attributes)
        mean = mean * scale + offset
        spread = None if spread is None else spread * scale
        if self.scaling.not_negative and not self.training:
            mean = mean.clamp_min(0.0)
        return mean, spread

    def runoff_scaling(self, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and offset, ``[catchment]``, from standardised runoff to the target's units.

        ``attributes`` are ``[catchment, attribute]`` in physical units.
        """
        ones = self.target_std.new_ones(attributes.shape[0])
        if self._scale_column is not None:
            ones = attributes[:, self._scale_column]
        return self.target_std * ones, self.target_mean * ones

    def run(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance over a whole series: what `step` does again and again, faster where the network can.

        Parameters
        ----------
        state, static
            As for `step`.
        forcing
            ``[time, catchment, forcing]``.
        feedback
            ``[time, catchment]``, or None.

        Returns
        -------
        state, raw
            The state after the last step, and ``[time, catchment, output]``.
        """
        raw = []
        for t in range(forcing.shape[0]):
            state, result = self.step(state, forcing[t], static, None if feedback is None else feedback[t])
            raw.append(result)
        return state, torch.stack(raw)

    def simulate(self, forcing: Tensor, attributes: Tensor, feedback: Tensor | None = None) -> Tensor:
        """Simulate runoff from the empty state; equal to `step` again and again.

        Parameters
        ----------
        forcing
            ``[time, catchment, forcing]``, in physical units; at least one step.
        attributes
            ``[catchment, attribute]``, in physical units.
        feedback
            Observed runoff ``feedback`` steps before each step, ``[time, catchment]``, see `step`.

        Returns
        -------
        Tensor
            Mean runoff in the target's units, ``[time, catchment]``.

        Raises
        ------
        ValueShapeError
            If the shapes do not fit the network.
        """
        self._check("forcing", forcing, self.forcing_names, 3)
        state = self.initial_state(forcing.shape[1])
        _, raw = self.run(state, forcing, self.static_features(attributes), feedback)
        return self.runoff(raw, attributes)[0]

    def _check(self, what: str, given: Tensor, names: tuple[str, ...], dimensions: int) -> None:
        if given.dim() != dimensions or given.shape[-1] != len(names) or 0 in given.shape[:-1]:
            axes = ", ".join(("time", "catchment")[3 - dimensions :])
            raise ValueShapeError(
                f"{what} have shape {tuple(given.shape)}; [{axes}, {len(names)}] is needed ({', '.join(names)})"
            )
