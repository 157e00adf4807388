"""Which model and which tower files a command means: bundles, run folders, published folders and configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bmi_components.canveg.bundle import KIND
from bmi_components.canveg.tower import TowerForcing
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.importers.jaxcanveg import import_jaxcanveg, read_published_configuration
from bmi_components.trained_model import TrainedModel

__all__ = ["Part", "cut", "find_configuration", "open_bundle", "published_files", "read_blocks"]

Part = Literal["test", "training"]

PUBLISHED = "configs.json"


def open_bundle(path: Path) -> TrainedModel:
    """Return the trained canopy model of a bundle, of the run folder that holds one, or of a folder of JAX-CanVeg.

    Raises
    ------
    BundleError
        If there is none, it is damaged, or it is of another kind.
    """
    if path.suffix == ".eqx" or (path.is_dir() and any(path.glob("*.eqx"))):
        return import_jaxcanveg(path)
    inner = path / "bundle"
    bundle = TrainedModel.load(inner if inner.is_dir() else path)
    if bundle.kind != KIND:
        raise BundleError(f"{path}: this is a model of kind {bundle.kind!r}; {KIND!r} is needed")
    return bundle


def find_configuration(model: Path) -> Path | None:
    """Return the configuration that lies beside a published model; None where there is none."""
    found = (model.parent if model.suffix == ".eqx" else model) / PUBLISHED
    return found if found.is_file() else None


def published_files(configuration: Path, part: Part = "test", data: Path | None = None) -> tuple[Path, Path]:
    """Return the files of forcing and fluxes that a published configuration names.

    Its paths start from its folder; a file may be packed (``.gz``), or lie in ``data`` or ``data/<site>`` instead.

    Raises
    ------
    ConfigurationError
        If the configuration cannot be read, or a file is nowhere.
    """
    _, _, content = read_published_configuration(configuration)
    named = content.get("data")
    forcing, fluxes = (
        _found(configuration, f"{part} {kind}", named, str(content.get("site name", "")), data)
        for kind in ("forcings", "fluxes")
    )
    return forcing, fluxes


def _found(configuration: Path, key: str, named: Any, site: str, data: Path | None) -> Path:
    name = named.get(key) if isinstance(named, Mapping) else None
    if not isinstance(name, str):
        raise ConfigurationError(
            f"{configuration}: data: {key!r} is missing; the path of a csv file is needed"
        )
    places = [configuration.parent / name]
    if data is not None:
        places += [data / Path(name).name, data / site / Path(name).name]
    for place in places:
        for one in (place, place.with_name(f"{place.name}.gz")):
            if one.is_file():
                return one
    raise ConfigurationError(
        f"{configuration}: {key}: there is no file {places[0].resolve()}"
        + ("" if data is None else f", nor one of that name in {data}")
        + "; name the files themselves, or the folder that holds them"
    )


def cut(forcing: TowerForcing, period: str | None) -> TowerForcing:
    """Return the days of a period ``FIRST..LAST``, both included; all without one.

    Raises
    ------
    ConfigurationError
        If the text is no such period, or none of its days is there.
    """
    if period is None:
        return forcing
    first, _, last = period.partition("..")
    try:
        begin, end = np.datetime64(first, "D"), np.datetime64(last, "D") + 1
        if np.isnat([begin, end]).any():
            raise ValueError("a day is missing")
    except ValueError as error:
        raise ConfigurationError(
            f"{period!r} is no period; FIRST..LAST is needed, such as 2020-07-01..2020-07-31"
        ) from error
    steps = slice(*np.searchsorted(forcing.time, np.array([begin, end], "datetime64[s]")).tolist())
    if steps.start >= steps.stop:
        raise ConfigurationError(
            f"{period}: the forcing of {forcing.site} lasts from {forcing.time[0]} to {forcing.time[-1]}"
        )
    return forcing.select(steps)


def read_blocks(text: str | None) -> dict[str, float]:
    """Read lengths of blocks of days, ``train=10,validation=3,test=5``.

    Raises
    ------
    ConfigurationError
        If the text is not of that form.
    """
    try:
        return (
            {name: float(days) for name, days in (one.split("=") for one in text.split(","))} if text else {}
        )
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r}: blocks are needed such as train=10,validation=3,test=5"
        ) from error
