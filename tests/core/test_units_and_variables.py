"""Units convert as UDUNITS says, and the catalogue is sound."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.errors import UnitsError, UnknownNameError
from bmi_components.units import converter
from bmi_components.variables import CATALOGUE, GROUPS, variable

STANDARD_NAME = re.compile(
    r"[a-z][a-zA-Z0-9]*(?:[-~_][a-zA-Z0-9]+)*__[a-z][a-zA-Z0-9]*(?:[-~_][a-zA-Z0-9]+)*\Z"
)


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("K", "degC", 273.15, 0.0),
        ("degC", "K", 10.0, 283.15),
        ("degF", "degC", 212.0, 100.0),
        ("mm s-1", "mm d-1", 1.0, 86_400.0),
        ("m h-1", "mm d-1", 1.0, 24_000.0),
        ("percent", "1", 50.0, 0.5),
        ("hPa", "Pa", 1013.25, 101_325.0),
    ],
)
def test_known_conversions(source: str, target: str, value: float, expected: float) -> None:
    assert converter(source, target)(value) == pytest.approx(expected, rel=1e-12, abs=1e-10)


@given(st.floats(-1e6, 1e6), st.sampled_from([("K", "degF"), ("mm d-1", "m s-1"), ("degC", "K")]))
def test_there_and_back_is_where_we_were(value: float, units: tuple[str, str]) -> None:
    there, back = converter(*units), converter(*reversed(units))
    assert back(there(value)) == pytest.approx(value, rel=1e-9, abs=1e-8)


def test_arrays_convert_and_the_same_units_touch_nothing() -> None:
    values = np.array([1.0, 2.0])
    assert converter("mm", "mm")(values) is values
    np.testing.assert_allclose(converter("m", "mm")(values), [1000.0, 2000.0])


@pytest.mark.parametrize("wrong", ["C", "-", "none", "", "hrs", "bucket", "gC m-2 d-1"])
def test_what_looks_like_units_and_is_not_is_refused(wrong: str) -> None:
    with pytest.raises(UnitsError, match=re.escape(repr(wrong))):
        converter(wrong, "1")


def test_units_of_another_kind_are_refused() -> None:
    with pytest.raises(UnitsError, match="measure different things"):
        converter("kg m-2 s-1", "mm s-1")


def test_every_variable_has_a_standard_name_sound_units_and_a_range_in_order() -> None:
    entries = [entry for group in GROUPS.values() for entry in group]
    assert len(CATALOGUE) == len(entries) == len({entry.name for entry in entries})
    for entry in entries:
        assert STANDARD_NAME.match(entry.name), entry.name
        converter(entry.units, entry.units)
        if entry.valid_range is not None:
            low, high = entry.valid_range
            assert low < high
            assert math.isfinite(low)


def test_a_variable_in_other_units_takes_its_range_along() -> None:
    assert variable("temperature", "K").valid_range == pytest.approx((173.15, 343.15))
    assert variable("precipitation", "mm s-1").valid_range == (0.0, math.inf)
    assert variable("runoff_rate", "m h-1").units == "m h-1"
    with pytest.raises(UnitsError):
        variable("temperature", "mm")
    with pytest.raises(UnknownNameError, match="precipitation"):
        variable("rain")
