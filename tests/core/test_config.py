"""Configuration files mean what their writers meant, and mistakes are told by file, key and remedy."""

import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from bmi_components.config import Settings, describe, load, parse_time, read_yaml
from bmi_components.errors import ConfigurationError


class Gauge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A nested mapping of the file."""

    area: Annotated[float, Meta(gt=0.0, description="Catchment area, km2.")]
    since: datetime.datetime | None = None


class ExampleSettings(Settings, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Settings with one key of each kind."""

    rate: Annotated[float, Meta(description="A rate, mm d-1.")]
    method: Annotated[Literal["hargreaves", "oudin"], Meta(description="Formula.")] = "oudin"
    data: Annotated[Path | None, Meta(description="A file.")] = None
    gauges: Annotated[list[Gauge], Meta(description="Gauges.")] = msgspec.field(default_factory=list)


def write(folder: Path, text: str) -> Path:
    path = folder / "example.yaml"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> ExampleSettings:
    return load(write(folder, text), ExampleSettings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3", 3.0),
        ("007", 7.0),
        ("6.", 6.0),
        ("+1.5e+2", 150.0),
        (".inf", float("inf")),
    ],
)
def test_numbers_are_numbers_by_yaml_12(text: str, value: float, tmp_path: Path) -> None:
    assert read(tmp_path, f"rate: {text}\n").rate == value


@pytest.mark.parametrize("text", ["no", "on", "yes", "12:30", "2020-01-01", "1_000", "'5'", "0xzz", "."])
def test_text_stays_text(text: str, tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, f"key: {text}\n")) == {"key": text.strip("'")}


@given(st.floats(allow_nan=False))
def test_every_number_that_python_prints_is_read_back(value: float) -> None:
    from bmi_components.config import _scalar

    text = repr(value).replace("inf", ".inf")
    assert _scalar(text) == value


def test_keys_values_lists_and_quotes_match_pyyaml_where_yaml_11_and_12_agree(shared_data: Path) -> None:
    for path in sorted((shared_data / "nextgen" / "configs").glob("*.yml")):
        ours = read_yaml(path)
        theirs = yaml.safe_load(path.read_text())
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if not isinstance(value, (datetime.date, datetime.datetime)):
                assert ours[key] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 1\nrates: 2\n", r"unknown key 'rates'; did you mean 'rate'\?"),
        ("rate: 1\nzzz: 2\n", "unknown key 'zzz'; known keys are .*rate"),
        ("method: oudin\n", r"the key 'rate' is missing \(A rate, mm d-1"),
        ("rate: fast\n", r"key 'rate': expected float, got str \(given: 'fast'\)"),
        (
            "rate: 1\nmethod: penman\n",
            r"key 'method': it must be one of hargreaves, oudin \(given: 'penman'\)",
        ),
        ("rate: 1\nthreads: 0\n", "key 'threads': expected int >= 1"),
        ("rate: 1\nrate: 2\n", "line 2: the key 'rate' is given twice"),
        ("rate: [1\n", "not valid YAML"),
        ("- 1\n", "must hold keys and values"),
        ("rate: !!python/object:os.system 1\n", "tag"),
        ("rate: 1\nstart_time: tomorrow\n", "key 'start_time': 'tomorrow' is not a date"),
        ("rate: 1\nend_time: 2020-01-01\n", "end_time needs start_time"),
        ("rate: 1\nstart_time: 2020-01-02\nend_time: 2020-01-01\n", "must be later than start_time"),
        ("rate: 1\ngauges: [{area: 1, are: 2}]\n", r"unknown key 'gauges\[0\].are'; did you mean 'area'"),
        ("rate: 1\ngauges: [{area: -1}]\n", r"gauges\[0\].area.*> 0"),
        ("rate: 1\ngauges: [{}]\n", r"the key 'gauges\[0\].area' is missing \(Catchment area"),
    ],
)
def test_mistakes_are_told_by_file_key_and_remedy(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, text)
    assert "example.yaml" in str(caught.value)


def test_absent_unreadable_and_binary_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_yaml(tmp_path / "binary")
    assert read_yaml(write(tmp_path, "# nothing\n")) == {}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "rate: 1\ndata: sub/file.nc\n").data == tmp_path / "sub" / "file.nc"
    assert read(tmp_path, "rate: 1\ndata: /data/file.nc\n").data == Path("/data/file.nc")


@pytest.mark.parametrize(
    "text",
    ["2020-01-01 06:00:00", "2020/01/01 06", "2020-01-01T06:00:00Z", "2020-01-01T08:00+02:00", "2020010106"],
)
def test_dates_come_in_many_forms(text: str) -> None:
    assert parse_time(text) == datetime.datetime(2020, 1, 1, 6)


def test_a_period_gives_the_duration_of_the_run(tmp_path: Path) -> None:
    settings = read(tmp_path, "rate: 1\nstart_time: 2020/01/01 00\nend_time: 2020-01-03\n")
    assert settings.duration == 2 * 86_400.0
    assert read(tmp_path, "rate: 1\nstart_time: 2020-01-01\n").duration is None
    nested = read(tmp_path, "rate: 1\ngauges: [{area: 2, since: 1990-10-01}]\n")
    assert nested.gauges[0].since == datetime.datetime(1990, 10, 1)


def test_the_reference_page_lists_every_key_with_its_meaning() -> None:
    table = describe(ExampleSettings)
    for key in ExampleSettings.__struct_fields__:
        assert f"`{key}`" in table
    assert "| `rate` | number | **required** | A rate, mm d-1. |" in table
    assert "`hargreaves` or `oudin`" in table
    assert "| `threads` | integer ≥ 1 | `1` |" in table
    assert "| `data` | path | `none` |" in table
