"""Flux models that are neural networks: standardised inputs, a PyTorch network, the target's units back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.lstm.flux.daily import DAY_OF_YEAR
from bmi_components.lstm.flux.models import FluxModel, read_hyperparameters
from bmi_components.trained_model import TrainedModel

__all__ = ["NETWORKS", "NetworkModel", "average", "create_network", "parse_sizes"]

NETWORKS = MappingProxyType(
    {
        "lstm": "recurrent:LstmNetwork",
        "rnn": "recurrent:RnnNetwork",
        "ann": "dense:AnnNetwork",
        "dynamic_ann": "dense:DynamicAnnNetwork",
        "xlstm": "xlstm:XlstmNetwork",
        "xlstm_mixer": "xlstm_mixer:XlstmMixerNetwork",
    }
)
"""Networks by name, imported when they are first needed."""


def _network_class(name: str) -> Any:
    module, class_name = NETWORKS[name].split(":")
    return getattr(importlib.import_module(f"bmi_components.lstm.flux.{module}"), class_name)


def parse_sizes(name: str, sizes: Mapping[str, Any]) -> msgspec.Struct:
    """Check the sizes of a network.

    Raises
    ------
    ConfigurationError
        If one is unknown or out of range.
    """
    try:
        parsed: msgspec.Struct = msgspec.convert(dict(sizes), _network_class(name).Sizes)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name} sizes: {error}") from error
    return parsed


def create_network(
    name: str, sizes: Mapping[str, Any], inputs: int | Sequence[str], sequence_length: int, seed: int = 0
) -> nn.Module:
    """Make a network with random weights.

    Parameters
    ----------
    name
        One of `NETWORKS`.
    sizes
        Its sizes; those left out take their defaults.
    inputs
        Names of the inputs, or their number.
    sequence_length
        Days in a window.
    seed
        Of the initial weights.

    Raises
    ------
    ConfigurationError
        If a size is unknown or out of range or needs an input that is not there, or the network needs a package that
        is not installed.
    """
    parsed = parse_sizes(name, sizes)
    if not isinstance(inputs, int):
        if getattr(parsed, "harmonics", 0) and inputs[-1] != DAY_OF_YEAR:
            raise ConfigurationError(
                f"{name} sizes: harmonics need the input {DAY_OF_YEAR} in the last place; the inputs are "
                f"{', '.join(inputs)} (set daily.day_of_year)"
            )
        inputs = len(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = _network_class(name)(parsed, inputs, sequence_length)
    return network


class NetworkModel(FluxModel):
    """A trained network, or several that are averaged, with the statistics that its inputs and target are scaled by.

    The weights of a single network carry its own names; those of several begin with "0/", "1/", ...

    Raises
    ------
    BundleError
        If statistics are missing or the weights do not fit the sizes.
    """

    def __init__(self, bundle: TrainedModel) -> None:
        super().__init__(bundle)
        settings = self.hyperparameters
        missing = [n for n in (*self.input_names, self.target_name) if n not in bundle.normalisation]
        if missing:
            raise BundleError(f"the bundle's normalisation has no mean and std of {missing[0]!r}")
        statistics = [bundle.normalisation[name] for name in self.input_names]
        self._mean = np.array([entry["mean"] for entry in statistics])
        self._std = np.array([entry["std"] for entry in statistics])
        target = bundle.normalisation[self.target_name]
        self._target_mean, self._target_std = target["mean"], target["std"]
        try:
            self.networks = [
                create_network(
                    settings.model, settings.sizes, self.input_names, settings.sequence_length
                ).eval()
                for _ in range(settings.members)
            ]
        except ConfigurationError as error:
            raise BundleError(f"the bundle's network cannot be made: {error}") from error
        members = [
            {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
            for prefix, network in zip(_prefixes(settings.members), self.networks, strict=True)
        ]
        expected = {name: tuple(tensor.shape) for member in members for name, tensor in member.items()}
        found = {name: array.shape for name, array in bundle.weights.items()}
        if expected != found:
            name = min(name for name in expected | found if expected.get(name) != found.get(name))
            raise BundleError(
                f"the bundle's weight {name!r} has shape {found.get(name)}; {expected.get(name)} is needed"
            )
        with torch.no_grad():
            for member in members:
                for name, tensor in member.items():
                    tensor.copy_(torch.from_numpy(np.array(bundle.weights[name])))

    def standardise(self, inputs: NDArray[np.floating[Any]]) -> Tensor:
        """Return physical inputs ``[window, day, input]`` as the network reads them, float32."""
        return torch.from_numpy(((inputs - self._mean) / self._std).astype(np.float32))

    def _predict(self, inputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        with torch.inference_mode():
            standardised = self._network(self.standardise(inputs))
        result: NDArray[np.float64] = (
            standardised.numpy().astype(np.float64) * self._target_std + self._target_mean
        )
        return result

    def _network(self, x: Tensor) -> Tensor:
        """Return the members' mean."""
        return torch.stack([network(x) for network in self.networks]).mean(dim=0)

    def gradient(self, inputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Derivative of each window's prediction with respect to its own standardised inputs.

        Parameters
        ----------
        inputs
            ``[window, day, input]`` in physical units.

        Returns
        -------
        ndarray
            ``[window, day, input]``: change of the prediction, in the target's units, per standard deviation of
            the input.

        Raises
        ------
        ValueShapeError
            If the shape does not fit the model.
        """
        self._check(inputs)
        parts = []
        for start in range(0, len(inputs), 512):
            x = self.standardise(inputs[start : start + 512]).requires_grad_()
            (slope,) = torch.autograd.grad(self._network(x).sum(), x)
            parts.append(slope.numpy().astype(np.float64) * self._target_std)
        return np.concatenate(parts) if parts else np.zeros(inputs.shape)


def average(bundles: Sequence[TrainedModel]) -> TrainedModel:
    """Make one bundle whose prediction is the mean of several networks trained alike.

    Parameters
    ----------
    bundles
        Of single networks with the same sizes, inputs and normalisation.

    Raises
    ------
    BundleError
        If they differ.
    """
    first = bundles[0]
    settings = read_hyperparameters(first)
    for bundle in bundles:
        same = all(
            getattr(bundle, what) == getattr(first, what)
            for what in ("hyperparameters", "inputs", "outputs", "normalisation")
        )
        if not same or settings.members != 1 or settings.model not in NETWORKS:
            raise BundleError(
                "only single networks of the same sizes, inputs and normalisation can be averaged"
            )
    if len(bundles) == 1:
        return first
    return replace(
        first,
        hyperparameters={**first.hyperparameters, "members": len(bundles)},
        weights={
            f"{prefix}{name}": array
            for prefix, bundle in zip(_prefixes(len(bundles)), bundles, strict=True)
            for name, array in bundle.weights.items()
        },
    )


def _prefixes(members: int) -> list[str]:
    """What the members' weights begin with."""
    return [""] if members == 1 else [f"{member}/" for member in range(members)]
