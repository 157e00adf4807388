"""The documentation's model that is not ours: it knows nothing of us, keeps its heat, and is coupled all the same."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import soil_heat
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components import couple

AIR, SNOW, SOIL = soil_heat.AIR, soil_heat.SNOW, soil_heat.SOIL


def column(folder: Path, temperature: float = 5.0) -> soil_heat.SoilHeat:
    path = folder / "soil.json"
    path.write_text(json.dumps({"temperature": temperature, "layers": 10}))
    model = soil_heat.SoilHeat()
    model.initialize(str(path))
    return model


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(soil_heat.__file__).read_text(encoding="utf-8"))
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("bmi_components")]


@settings(max_examples=20, deadline=None)
@given(air=st.floats(-30.0, 30.0), snow=st.floats(0.0, 1.0))
def test_heat_passes_through_the_surface_alone(
    air: float, snow: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = column(tmp_path_factory.mktemp("soil"))
    soil = model.get_value_ptr(SOIL)
    model.set_value(AIR, np.array([air + 273.15]))
    model.set_value(SNOW, np.array([snow]))
    per_layer = soil_heat.CAPACITY * soil_heat.THICKNESS
    insulation = soil_heat.THICKNESS / 2 / soil_heat.CONDUCTIVITY + snow / 0.3 / soil_heat.OF_SNOW
    for _ in range(5):
        before = soil.copy()
        model.update()
        given_off = 3600.0 * (air + 273.15 - before[0]) / insulation
        assert per_layer * (soil - before).sum() == pytest.approx(given_off, rel=1e-6, abs=1e-3)
        assert min(air, 5.0) - 1e-9 <= soil.min() - 273.15 <= soil.max() - 273.15 <= max(air, 5.0) + 1e-9


def test_it_is_coupled_with_its_own_units_and_hours(tmp_path: Path) -> None:
    run = couple(
        {"soil": column(tmp_path)},
        feeds={f"soil:{AIR}": lambda time: [263.15], f"soil:{SNOW}": lambda time: [0.0]},
    ).run(until=50 * 3600.0, record=[f"soil:{SOIL}"], progress=False)
    series = run[f"soil.{SOIL}"]
    assert series.shape == (50, 10)
    assert (np.diff(series[:, 0]) < 0.0).all()
