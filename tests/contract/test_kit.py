"""The contract kit notices each broken promise and says which."""

from pathlib import Path

import broken_components
import pytest
from linear_reservoir import LinearReservoir

from bmi_components.testing import ContractError, NgenAdapter, check_component

BROKEN = {
    "WrongUnits": "units",
    "ValueIsReturnedNotFilled": "does not write into dest",
    "PointerIsACopy": "same array for the whole run",
    "ClockStandsStill": "wrong rows of the forcing",
    "SharedStorage": "do not touch each other",
    "ForgetsItsStorage": "goes on bit for bit",
    "AcceptsMissingForcing": "an update with nan",
    "OutputIsMissing": "is a number after every hour",
}


@pytest.mark.parametrize(("component", "sentence"), BROKEN.items())
def test_kit_names_the_broken_promise(component: str, sentence: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("residence_time: [5.0]\n")
    with pytest.raises(ContractError, match=sentence):
        check_component(getattr(broken_components, component), config)


def test_nextgen_sees_a_day_of_runoff_depth_in_24_hours(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("residence_time: [5.0]\n")
    adapter = NgenAdapter(LinearReservoir, config, mass_balance=True, model_params={"residence_time": 2.0})
    rain = {"atmosphere_water__liquid_equivalent_precipitation_rate": 12.0}
    depths = [adapter.step(rain)["land_surface_water__runoff_depth"] for _ in range(47)]
    day = LinearReservoir()
    day.initialize(str(config))
    day.set_value("residence_time", [2.0])
    day.set_value("atmosphere_water__liquid_equivalent_precipitation_rate", [12.0])
    day.update()
    assert sum(depths) == pytest.approx(day.get_value_ptr("land_surface_water__runoff_depth")[0], rel=1e-12)
    assert depths[:23] == [0.0] * 23


def test_the_page_on_ones_own_model_shows_the_example_as_it_is() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    example = (docs / "examples" / "linear_reservoir.py").read_text()
    assert f"```python\n{example}```\n" in (docs / "add_your_own_model.md").read_text()
