"""The linear reservoir on PyTorch and on JAX: what a device component of each framework must do."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from linear_reservoir import DAY, LinearReservoir, LinearReservoirSettings, ReservoirStepper
from numpy.typing import NDArray

from bmi_components.stepper import Stepper


class DeviceStepper(ReservoirStepper):
    """State in tensors of a framework; what crosses to the host does so in ``read_state`` and ``write_state``."""

    def __init__(self, residence_time: list[float]) -> None:
        super().__init__(residence_time)
        self.upload()

    def tensor(self, values: NDArray[Any]) -> Any:
        raise NotImplementedError

    def host(self, tensor: Any) -> NDArray[Any]:
        return np.array(tensor)

    def decay(self, residence_time: Any) -> Any:
        raise NotImplementedError

    def join(self, vectors: list[Any]) -> Any:
        raise NotImplementedError

    def upload(self) -> None:
        self.state = {name: self.tensor(array) for name, array in self.state.items()}

    def read_state(self) -> dict[str, NDArray[Any]]:
        return {name: self.host(array) for name, array in self.state.items()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        tensors, self.state = self.state, self.read_state()
        try:
            super().write_state(state)
        except Exception:
            self.state = tensors
            raise
        self.upload()

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        residence = self.tensor(self.values["residence_time"])
        equilibrium = forcings * residence
        new = equilibrium + (self.state["storage"] - equilibrium) * self.decay(residence)
        runoff = self.state["storage"] + forcings - new
        self.state = {
            "storage": new,
            "rained": self.state["rained"] + forcings,
            "drained": self.state["drained"] + runoff,
        }
        return self.join([runoff / 1000.0 / DAY, runoff, new])

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        outputs[:] = np.concatenate([np.zeros(2 * self.size), self.host(self.state["storage"])])


class TorchStepper(DeviceStepper):
    """Float64 tensors."""

    backend = "torch"

    def tensor(self, values: NDArray[Any]) -> Any:
        return importlib.import_module("torch").as_tensor(values)

    def host(self, tensor: Any) -> NDArray[Any]:
        return np.array(tensor.cpu().numpy())

    def decay(self, residence_time: Any) -> Any:
        return (-1.0 / residence_time).exp()

    def join(self, vectors: list[Any]) -> Any:
        return importlib.import_module("torch").cat(vectors)


class TorchReservoir(LinearReservoir):
    """dS/dt = P - S/k on PyTorch."""

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        stepper = TorchStepper(settings.residence_time)
        stepper.device = settings.device
        return stepper


class JaxStepper(DeviceStepper):
    """Float32 arrays."""

    backend = "jax"
    dtype = "float32"

    def tensor(self, values: NDArray[Any]) -> Any:
        return importlib.import_module("jax.numpy").asarray(values, dtype=np.float32)

    def decay(self, residence_time: Any) -> Any:
        return importlib.import_module("jax.numpy").exp(-1.0 / residence_time)

    def join(self, vectors: list[Any]) -> Any:
        return importlib.import_module("jax.numpy").concatenate(vectors)


class JaxReservoir(LinearReservoir):
    """dS/dt = P - S/k on JAX."""

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        stepper = JaxStepper(settings.residence_time)
        stepper.device = settings.device
        return stepper
