"""A conceptual model whose parameters an LSTM sets anew at each step: the hybrid network with the SHM.

The Simple Hydrological Model is that of Ehret et al. (2020, doi:10.5194/hess-24-4389-2020), in the form and with the
parameter ranges of Acuña Espinoza et al. (2024, doi:10.5194/hess-28-2705-2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.recurrent import RecurrentNetwork, State, Statistics

__all__ = ["PARAMETER_RANGES", "HybridNetwork", "Stores", "simple_hydrology"]

PARAMETER_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "degree_day_factor": (0.0, 10.0),  # mm degC-1 step-1
        "fast_flow_threshold": (10.0, 60.0),  # mm step-1
        "soil_capacity": (20.0, 700.0),  # mm
        "beta": (1.0, 6.0),  # 1
        "interflow_share": (0.0, 1.0),  # 1
        "fast_flow_time": (1.0, 20.0),  # steps
        "interflow_time": (1.0, 100.0),  # steps
        "baseflow_time": (10.0, 1000.0),  # steps
    }
)
"""Range of each parameter, in the order of the network's outputs."""

LAND_USE_FACTOR = 0.9
"""Evapotranspiration of a wet soil by potential evapotranspiration."""

STRESS_POINT = 0.8
"""Share of the soil's capacity below which evapotranspiration falls short."""


class Stores(NamedTuple):
    """Water in the catchment, mm, each ``[catchment]``; the defaults are where a run starts."""

    snow: Tensor
    fast: Tensor
    soil: Tensor
    interflow: Tensor
    baseflow: Tensor


INITIAL_STORES = (0.0, 1.0, 5.0, 10.0, 15.0)
"""Where a run starts, mm, in the order of `Stores`."""


def simple_hydrology(
    stores: Stores,
    precipitation: Tensor,
    potential_evapotranspiration: Tensor,
    temperature: Tensor,
    parameters: tuple[Tensor, ...],
) -> tuple[Stores, Tensor]:
    """Advance the stores by one step.

    Parameters
    ----------
    stores
        Before the step.
    precipitation, potential_evapotranspiration
        mm step-1, ``[catchment]``.
    temperature
        degC, ``[catchment]``.
    parameters
        In the order and units of `PARAMETER_RANGES`, each ``[catchment]``.

    Returns
    -------
    stores, runoff
        After the step; runoff in mm step-1, ``[catchment]``.
    """
    degree_day_factor, threshold, capacity, beta, interflow_share, *times = parameters
    zero = torch.zeros_like(precipitation)

    freezing = temperature < 0.0
    melt = torch.minimum(stores.snow, torch.where(freezing, zero, temperature * degree_day_factor))
    snow = stores.snow - melt + torch.where(freezing, precipitation, zero)
    water = melt + torch.where(freezing, zero, precipitation)

    def drain(store: Tensor, inflow: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        outflow = (store + inflow) / time
        return store + inflow - outflow, outflow

    fast, fast_flow = drain(stores.fast, torch.maximum(zero, water - threshold), times[0])
    infiltration = torch.minimum(water, threshold)

    runoff_share = (stores.soil / capacity) ** beta
    filled = stores.soil + infiltration * (1.0 - runoff_share)
    percolation = infiltration * runoff_share + torch.maximum(zero, filled - capacity)
    soil = torch.minimum(filled, capacity)
    wetness = torch.where(soil <= STRESS_POINT * capacity, soil / capacity, torch.ones_like(soil))
    soil = torch.maximum(zero, soil - potential_evapotranspiration * LAND_USE_FACTOR * wetness)

    interflow, inter_flow = drain(stores.interflow, percolation * interflow_share, times[1])
    baseflow, base_flow = drain(stores.baseflow, percolation * (1.0 - interflow_share), times[2])
    return Stores(snow, fast, soil, interflow, baseflow), fast_flow + inter_flow + base_flow


class HybridNetwork(RecurrentNetwork):
    """An LSTM that reads weather and attributes and sets the parameters of the Simple Hydrological Model.

    Parameters
    ----------
    parameter_network
        Its ``raw`` are the parameters before the sigmoid, in the order of `PARAMETER_RANGES`.
    conceptual
        Names and statistics of precipitation, potential evapotranspiration and two temperatures (the mean of which
        counts); neuralhydrology feeds the stores what its scaler leaves of them, usually all.
    names
        The forcings: those of both.
    warm_up
        Steps during which the LSTM fills its state and the stores stay as they are.
    """

    state_names = ("h", "c", "stores", "age")

    conceptual_mean: Tensor
    conceptual_std: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self, parameter_network: GatedNetwork, conceptual: Statistics, names: tuple[str, ...], warm_up: int
    ) -> None:
        # its own statistics are never used: LSTM and stores standardise for themselves
        forcings = Statistics(names, torch.zeros(len(names)), torch.ones(len(names)))
        attributes = Statistics(
            parameter_network.attribute_names,
            parameter_network.attribute_mean,
            parameter_network.attribute_std,
        )
        super().__init__(forcings, attributes, parameter_network.scaling)
        self.parameter_network = parameter_network
        self.warm_up = warm_up
        self._columns = [forcings.names.index(name) for name in parameter_network.forcing_names]
        self._conceptual_columns = [forcings.names.index(name) for name in conceptual.names]
        lowest, highest = torch.tensor(list(PARAMETER_RANGES.values()), dtype=torch.float64).unbind(1)
        for name, tensor in (
            ("conceptual_mean", conceptual.mean),
            ("conceptual_std", conceptual.std),
            ("lowest", lowest),
            ("highest", highest),
        ):
            self.register_buffer(name, tensor.clone(), persistent=False)

    def static_features(self, attributes: Tensor) -> Tensor:
        """Return those of the LSTM, see `RecurrentNetwork.static_features`."""
        return self.parameter_network.static_features(attributes)

    def initial_state(self, catchments: int) -> State:
        """Return an empty LSTM, ``stores[catchment, store]`` as a run starts, and ``age[catchment, 1]`` in steps."""
        stores = self.lowest.new_tensor(INITIAL_STORES).expand(catchments, -1).clone()
        return (
            *self.parameter_network.initial_state(catchments),
            stores,
            stores.new_zeros(catchments, 1),
        )

    def step(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance by one step, see `RecurrentNetwork.step`."""
        memory, raw = self.parameter_network.step(state[:2], forcing[:, self._columns], static)
        stores, age, runoff = self._flow(state[2], state[3], forcing, raw)
        return (*memory, stores, age), runoff

    def run(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance over a whole series, see `RecurrentNetwork.run`."""
        memory, raw = self.parameter_network.run(state[:2], forcing[:, :, self._columns], static)
        stores, age = state[2:]
        runoff = []
        for t in range(forcing.shape[0]):
            stores, age, flow = self._flow(stores, age, forcing[t], raw[t])
            runoff.append(flow)
        return (*memory, stores, age), torch.stack(runoff)

    def _flow(
        self, stores: Tensor, age: Tensor, forcing: Tensor, raw: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the stores, or leave them until the LSTM has warmed up."""
        seen = (forcing[:, self._conceptual_columns] - self.conceptual_mean) / self.conceptual_std
        precipitation, potential, *temperatures = seen.unbind(1)
        parameters = self.lowest + torch.sigmoid(raw) * (self.highest - self.lowest)
        temperature = (temperatures[0] + temperatures[1]) / 2.0
        after, runoff = simple_hydrology(
            Stores(*stores.unbind(1)), precipitation, potential, temperature, parameters.unbind(1)
        )
        awake = age >= self.warm_up
        return torch.where(awake, torch.stack(after, dim=1), stores), age + 1.0, runoff.unsqueeze(1)
