"""The components that must keep the contract. A new component is covered by one more line in CASES."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bmipy
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Case:
    """One component with one configuration.

    ``config`` is YAML text, or the name of a file in configs/. ``options`` go to ``check_component``. A case whose
    framework (``requires``) is not installed is skipped; one that differs from another in nothing that bmi-tester
    looks at says ``bmi_tester=False``.
    """

    label: str
    component: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    requires: str = ""
    bmi_tester: bool = True

    def load(self) -> type[bmipy.Bmi]:
        if self.requires:
            pytest.importorskip(self.requires)
        module, _, name = self.component.partition(":")
        loaded: type[bmipy.Bmi] = getattr(importlib.import_module(module), name)
        return loaded

    def config_file(self, folder: Path) -> Path:
        if "\n" not in self.config and (CONFIGS / self.config).is_file():
            return CONFIGS / self.config
        path = folder / "config.yaml"
        path.write_text(self.config)
        return path


RESERVOIR = "linear_reservoir:LinearReservoir"
RESIDENCE = {"parameters": {"residence_time": 4.0}}

CASES = [
    Case("reservoir", RESERVOIR, "residence_time: [5.0]\n", RESIDENCE),
    Case("reservoirs", RESERVOIR, "residence_time: [5.0, 3.0, 80.0]\n", RESIDENCE),
    Case(
        "reservoir-estimate",
        RESERVOIR,
        "residence_time: [5.0]\npartial_step: estimate\n",
        RESIDENCE,
        bmi_tester=False,
    ),
    Case("torch", "framework_reservoirs:TorchReservoir", "residence_time: [5.0, 3.0]\n", RESIDENCE, "torch"),
    Case(
        "torch-estimate",
        "framework_reservoirs:TorchReservoir",
        "residence_time: [5.0]\npartial_step: estimate\n",
        RESIDENCE,
        "torch",
        bmi_tester=False,
    ),
    Case(
        "jax",
        "framework_reservoirs:JaxReservoir",
        "residence_time: [5.0, 3.0]\n",
        {**RESIDENCE, "mass_tolerance": 1e-6},
        "jax",
    ),
]
