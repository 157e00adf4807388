"""A tower's record as training sees it: its files, their parts, and days cut out of it that run side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.recipe import Recipe
from bmi_components.canveg.tower import (
    TowerFluxes,
    TowerForcing,
    common_period,
    read_fluxes,
    read_forcing,
    split_blocks,
)
from bmi_components.errors import ConfigurationError, ForcingError

__all__ = ["Data", "Pieces", "Record", "read_data"]

Array = Any
Mask = NDArray[np.bool_]

DAY = 86_400.0


@dataclass(frozen=True)
class Data:
    """What a tower gives to a training.

    Attributes
    ----------
    forcing, fluxes
        Of the record that is learnt from.
    parts
        Its steps by part, bool ``[time]``: "train" and "validation".
    test_forcing, test_fluxes, test
        The record with the test, and the steps of it that are judged; None: all.
    """

    forcing: TowerForcing
    fluxes: TowerFluxes
    parts: dict[str, Mask]
    test_forcing: TowerForcing
    test_fluxes: TowerFluxes
    test: Mask | None


def read_data(recipe: Recipe) -> Data:
    """Read a tower's files and split them as the recipe says.

    Raises
    ------
    ForcingError
        If a file cannot be read, or files do not fit together.
    ConfigurationError
        If the record is too short for its parts, or its steps are not the model's.
    """
    tower = recipe.tower
    forcing, fluxes = common_period(
        read_forcing(tower.forcing), read_fluxes(tower.fluxes, columns=tower.columns)
    )
    if forcing.step != recipe.options.time_step:
        raise ConfigurationError(
            f"options.time_step is {recipe.options.time_step:g} s, but {forcing.site} has steps of {forcing.step} s"
        )
    parts = split_blocks(forcing.time, tower.blocks, gap=tower.gap)
    if tower.test_forcing is None or tower.test_fluxes is None:
        return Data(forcing, fluxes, parts, forcing, fluxes, parts["test"])
    test_forcing, test_fluxes = common_period(
        read_forcing(tower.test_forcing), read_fluxes(tower.test_fluxes, columns=tower.columns)
    )
    return Data(forcing, fluxes, parts, test_forcing, test_fluxes, None)


class Pieces(NamedTuple):
    """Pieces of a record side by side: forcing ``[time, piece]``, observed fluxes ``[flux][time, piece]``.

    Of a whole record, both ``[time]``.
    """

    forcing: Forcing
    observed: list[Array]


class Record:
    """A record as the loss sees it.

    Parameters
    ----------
    recipe
        Which fluxes count, and how long pieces are.
    data
        The tower's.

    Attributes
    ----------
    names
        Of the fluxes that count or are judged.
    whole
        The record, with observations of the training's blocks.
    starts
        Steps at which pieces may start to count.
    variances, validation_variances
        Of each flux as observed in the training's and in the validation's blocks.
    validation
        Pieces of the validation's blocks.

    Raises
    ------
    ForcingError
        If a flux of the loss was not observed.
    ConfigurationError
        If no block is long enough for a piece.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        names = ("latent_heat", "net_ecosystem_exchange", *recipe.loss.weights())
        self.names = tuple(dict.fromkeys(names))
        per_day = DAY / data.forcing.step
        self._before = round(recipe.training.warm_up * per_day)
        self._counted = max(1, round(recipe.training.days * per_day))
        train, held = (data.fluxes.where(data.parts[part]) for part in ("train", "validation"))
        self.whole = Pieces(
            Forcing(*(jnp.asarray(values) for values in data.forcing.forcing)),
            [jnp.asarray(getattr(train, name)) for name in self.names],
        )
        self.variances = {name: float(_variance(getattr(train, name))) for name in self.names}
        self.validation_variances = {name: float(_variance(getattr(held, name))) for name in self.names}
        for name in recipe.loss.weights():
            if not (self.variances[name] > 0.0 and self.validation_variances[name] > 0.0):
                raise ForcingError(
                    f"{data.forcing.site}: {name} is in the loss, but is not observed in both training and validation"
                )
        seen: Mask = np.any([np.isfinite(getattr(train, name)) for name in recipe.loss.weights()], axis=0)
        inside = _all_of_next(data.parts["train"], self._counted)
        self.starts = np.flatnonzero(inside & (_sum_of_next(seen, self._counted) > 0))
        if not self.starts.size:
            raise ConfigurationError(
                f"{data.forcing.site}: no block of the training holds {recipe.training.days:g} days with observations"
            )
        self._pieces = recipe.training.pieces
        self.validation = self._held_out(data.parts["validation"], held)

    def draw(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw starts of pieces, one from each of as many equal parts of the record, ``[piece]``."""
        places = (np.arange(self._pieces) + generator.random(self._pieces)) / self._pieces
        return np.asarray(self.starts[(places * self.starts.size).astype(np.int64)])

    def cut(self, whole: Pieces, starts: Array) -> Pieces:
        """Return pieces whose counted days begin at ``starts``, ``[piece]``; ``whole`` is the record."""
        steps = jnp.arange(-self._before, self._counted)[:, None] + starts[None, :]
        # before the record began its first step is repeated
        steps = jnp.maximum(steps, 0)
        counted = (jnp.arange(-self._before, self._counted) >= 0)[:, None]
        return Pieces(
            Forcing(*(values[steps] for values in whole.forcing)),
            [jnp.where(counted, values[steps], jnp.nan) for values in whole.observed],
        )

    def _held_out(self, part: Mask, fluxes: TowerFluxes) -> Pieces:
        """Return pieces of the validation, as many and as long as those of an update, evenly over its blocks.

        So both are one compiled program; with more days than pieces, the days between are not looked at.
        """
        seen: Mask = np.any([np.isfinite(getattr(fluxes, name)) for name in self.names], axis=0)
        inside = _all_of_next(part, self._counted)
        starts = np.flatnonzero(inside & (_sum_of_next(seen, self._counted) > 0))
        if not starts.size:
            raise ConfigurationError(
                f"no block of the validation holds {self._counted} steps with observations"
            )
        places = (np.arange(self._pieces) + 0.5) / self._pieces
        whole = self.whole._replace(observed=[jnp.asarray(getattr(fluxes, name)) for name in self.names])
        return self.cut(whole, jnp.asarray(starts[(places * starts.size).astype(np.int64)]))


def _variance(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.var()) if known.size else math.nan


def _sum_of_next(values: Mask, count: int) -> NDArray[np.int64]:
    """Return at each step the sum over it and those that follow, ``count`` in all (fewer at the end)."""
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(
        total[np.minimum(np.arange(values.size) + count, values.size)] - total[:-1], dtype=np.int64
    )


def _all_of_next(values: Mask, count: int) -> Mask:
    return np.asarray(_sum_of_next(values, count) == count)
