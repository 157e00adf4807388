"""δHBV at two time scales: a daily model that spins up and hands its memory and stores to an hourly one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.hbv.model import Catchments, DeltaHBV, HBVHyperparameters, HBVState
from bmi_components.lstm.cells import LstmState
from bmi_components.trained_model import TrainedModel

__all__ = ["MultiTimescaleHBV", "hand_over_stores", "steppable_model"]

HOURS = 24

_BRANCH = (
    "physics",
    "components",
    "dynamic_parameters",
    "hidden",
    "dropout",
    "mlp_hidden",
    "mlp_layers",
    "mlp_dropout",
)
_COMMON = ("network_attributes", "log_transformed", "elevation_attribute", "area_attribute")


def hand_over_stores(daily: Tensor, hourly: Tensor) -> Tensor:
    """Put the daily stores ``[5, catchment, component]`` in place of the hourly ones; further stores stay."""
    return torch.cat((daily, hourly[daily.shape[0] :]))


class MultiTimescaleHBV(nn.Module):
    """HBV 2.0 by the day, then HBV 2.1 (or 2.0) by the hour (Song et al. 2025, hourly extension).

    The published component starts the daily model afresh every seven days, which makes the stores jump. Here the hourly
    model carries its state on for ever: the daily model only spins up, over a record before the start.

    Parameters
    ----------
    daily, hourly : DeltaHBV
        The two models, without routing: runoff of a unit is what they give.
    h_transfer, c_transfer : Linear, optional
        Maps from the daily to the hourly memory; the hourly memory starts empty without them.
    window : int
        Hours before the start that the hourly model itself runs over.
    """

    def __init__(
        self,
        daily: DeltaHBV,
        hourly: DeltaHBV,
        h_transfer: nn.Linear | None,
        c_transfer: nn.Linear | None,
        window: int = 168,
    ) -> None:
        super().__init__()
        self.daily, self.hourly, self.window = daily, hourly, window
        self.h_transfer, self.c_transfer = h_transfer, c_transfer

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> MultiTimescaleHBV:
        """Make the model that a bundle with a "multi_timescale" network describes, in evaluation mode.

        Raises
        ------
        BundleError
            If the weights do not fit the hyper-parameters.
        """
        hp = dict(bundle.hyperparameters)
        common = {key: hp[key] for key in _COMMON if key in hp}
        names = [a.name for a in bundle.attributes]
        projected = "hourly.in_proj.weight" in bundle.weights

        def model(
            sizes: Mapping[str, Any], prefix: str, normalisation: Mapping[str, Mapping[str, float]]
        ) -> DeltaHBV:
            fields = {**common, **{key: sizes[key] for key in _BRANCH}}
            fields |= {"network": "timescale_branch", "routing": False, "projected": projected}
            try:
                made = DeltaHBV(msgspec.convert(fields, HBVHyperparameters), names, normalisation)
            except (msgspec.ValidationError, ConfigurationError) as error:
                raise BundleError(
                    f"the bundle's hyperparameters do not make an HBV model: {error}"
                ) from error
            made.load_weights(
                {k.removeprefix(prefix): v for k, v in bundle.weights.items() if k.startswith(prefix)}
            )
            return made

        hourly = model(hp, "hourly.", bundle.normalisation)
        by_day = {key.removeprefix("daily/"): value for key, value in bundle.normalisation.items()}
        daily = model(hp["daily"], "daily.", by_day)
        h_transfer, c_transfer = _linear(bundle, "h_transfer"), _linear(bundle, "c_transfer")
        return cls(daily, hourly, h_transfer, c_transfer, hp.get("window") or 168).eval()

    def bind(self, attributes: Tensor, hidden: Tensor | None = None) -> Catchments:
        """Fix what does not vary with time: the hourly model takes the daily one's static parameters where it can.

        Only the parameters that the daily physics lacks (F0, ALPHA, KS) come from the hourly branch; the golden run
        ``hbv2_mts`` shows it.
        """
        daily, hourly = self.daily.bind(attributes, None), self.hourly.bind(attributes, None)
        by_day = {p.symbol: i for i, p in enumerate(self.daily.static_bounds)}
        static = [
            daily.static[by_day[p.symbol]] if p.symbol in by_day else hourly.static[i]
            for i, p in enumerate(self.hourly.static_bounds)
        ]
        return hourly._replace(static=torch.stack(static))

    def warm_up(self, forcing: Tensor, attributes: Tensor) -> tuple[Catchments, HBVState]:
        """Bring the hourly model to the end of an hourly record ``[hour, catchment, 3]``.

        The daily model runs over the whole days of the record but for the last ``window`` hours, which the hourly
        model runs over.

        Raises
        ------
        ValueShapeError
            If the record is shorter than a day and the window.
        """
        hours = forcing.shape[0]
        days = (hours - self.window) // HOURS
        if days < 1:
            raise ValueShapeError(
                f"a record of {hours} h is too short to spin up: {self.window + HOURS} h or more are needed"
            )
        first = hours - self.window - days * HOURS
        by_day = forcing[first : hours - self.window].reshape(days, HOURS, *forcing.shape[1:]).mean(1)
        _, before = self.daily.warm_up(by_day, attributes)
        catchments = self.bind(attributes)
        state = self.hand_over(before, self.hourly.initial_state(forcing.shape[1]))
        state, _ = self.hourly.simulate(state, forcing[hours - self.window :], catchments)
        return catchments, state

    def hand_over(self, daily: HBVState, hourly: HBVState) -> HBVState:
        """Return the hourly state that follows a daily one: its stores, and its memory through the linear maps."""
        memory = LstmState(hourly.h, hourly.c)
        if self.h_transfer is not None and self.c_transfer is not None:
            memory = LstmState(self.h_transfer(daily.h), self.c_transfer(daily.c))
        return HBVState(hand_over_stores(daily.stores, hourly.stores), hourly.under_way, *memory)


def _linear(bundle: TrainedModel, name: str) -> nn.Linear | None:
    weight, bias = bundle.weights.get(f"{name}.weight"), bundle.weights.get(f"{name}.bias")
    if weight is None or bias is None:
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))
    return layer


def steppable_model(bundle: TrainedModel) -> DeltaHBV | MultiTimescaleHBV:
    """Return the model of a bundle, of one or two time scales, by its hyper-parameters."""
    if bundle.hyperparameters.get("network") == "multi_timescale":
        return MultiTimescaleHBV.from_bundle(bundle)
    return DeltaHBV.from_bundle(bundle)
