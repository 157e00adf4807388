"""`bmi-components canveg`: models of any origin are judged and explored at a tower, and mistakes are sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canopy_stand_in import SITE, StandIn
from small_tower import make_fluxes, make_forcing

from bmi_components.canveg import model, plots, training
from bmi_components.canveg.bundle import pack, unpack
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import default_parameters
from bmi_components.canveg.tower import MEASURED
from bmi_components.cli import main
from bmi_components.trained_model import TrainedModel

HEADERS = {
    "day_of_year": "DoY",
    "hour": "Hour",
    "air_temperature": "TA_F",
    "shortwave": "SW_IN_F",
    "vapour_pressure": "eair",
    "wind_speed": "WS_F",
    "co2": "CO2",
    "pressure": "PA_F",
    "friction_velocity": "USTAR",
    "soil_temperature": "TS_F",
    "soil_moisture": "SWC_F",
    "leaf_area_index": "LAI",
    "canopy_height": "veg_ht",
}


class Tractable(StandIn):
    """The stand-in, made of a bundle as CanVeg is."""

    def __init__(self, options: Options, site: Any, parameters: Any, dispersion: Any) -> None:
        super().__init__(parameters)
        self.options, self.dispersion = options, dispersion
        scale = 2.0 if options.mode == "reference" else 1.0
        self.parameters = parameters._replace(respiration_base=scale * parameters.respiration_base)

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> Tractable:
        return cls(*unpack(bundle))


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "CanVeg", Tractable)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes the time; the first test below and those of the evaluation draw."""
    for name in ("series", "days", "diurnal_cycle", "scatter", "energy_balance"):
        monkeypatch.setattr(plots, f"plot_{name}", lambda *_: None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    options = Options(layers=1, atmosphere_layers=1)
    packed = pack(options, SITE, default_parameters(), np.ones((2, 1)), {"site": "US-Xxx"}, "CC0")
    packed.save(tmp_path / "small", card="A small canopy.")
    return tmp_path / "small"


@pytest.fixture
def tower(tmp_path: Path) -> tuple[Path, Path]:
    forcing = make_forcing(4)
    fluxes = make_fluxes(forcing, latent_heat=5.0)
    end = forcing.time + np.timedelta64(forcing.step, "s")
    days = 183.0 + np.arange(1, len(forcing) + 1) // 48
    columns: dict[str, Any] = dict(forcing.forcing._replace(day_of_year=days)._asdict())
    del columns["longwave"]
    assert set(columns) | {"longwave"} == set(Forcing._fields)
    return (
        write(tmp_path / "US-Xxx-forcings-test.csv", end, {HEADERS[k]: v for k, v in columns.items()}),
        write(
            tmp_path / "US-Xxx-fluxes-test.csv",
            end,
            dict(
                zip(
                    ("LE", "H", "G", "NETRAD", "FC", "GPP", "Rsoil"),
                    (getattr(fluxes, name) for name in MEASURED),
                    strict=True,
                )
            ),
        ),
    )


def write(path: Path, end: Any, columns: dict[str, Any]) -> Path:
    lines = [",".join(["TIMESTAMP_END", *columns])]
    for time, *values in zip(end.astype(str), *columns.values(), strict=True):
        lines.append(",".join([time.replace("T", " "), *(f"{value:.9g}" for value in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_models_are_judged_beside_each_other(
    bundle: Path, tower: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--forcing", str(tower[0]), "--fluxes", str(tower[1]), "--quiet"]
    out = tmp_path / "judged"
    assert main(["canveg", "evaluate", str(bundle), *files, "--mode", "both", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| small, reference | LE | " in printed
    assert f"written to {out}" in printed
    models = json.loads((out / "summary.json").read_text(encoding="utf-8"))["models"]
    errors = {name: one["scores"]["net_ecosystem_exchange"]["all"]["rmse"] for name, one in models.items()}
    assert errors["small, corrected"] < 0.1 < errors["small, reference"]
    assert models["small, corrected"]["scores"]["latent_heat"]["all"]["bias"] == pytest.approx(-5.0, abs=1e-3)


@pytest.mark.usefixtures("no_figures")
def test_blocks_and_periods_narrow_what_is_judged(
    bundle: Path, tower: tuple[Path, Path], tmp_path: Path
) -> None:
    files = ["--forcing", str(tower[0]), "--fluxes", str(tower[1]), "--quiet", "--out", str(tmp_path / "out")]

    def steps(*options: str) -> int:
        assert main(["canveg", "evaluate", str(bundle), *files, *options]) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        return int(summary["models"]["small"]["scores"]["latent_heat"]["all"]["steps"])

    assert 0 < steps("--blocks", "train=1,test=1", "--gap", "0") < 2 * 48
    assert steps("--period", "2020-07-02..2020-07-02", "--as-published") == 48


@pytest.mark.usefixtures("no_figures")
def test_a_published_configuration_names_the_tower(
    bundle: Path,
    tower: tuple[Path, Path],
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shared_data / "checkpoints" / "jax_canveg" / "US-Bi1" / "Hybrid-1L-0.5"
    content = json.loads((folder / "configs.json").read_text(encoding="utf-8"))
    content["data"] |= {"test forcings": tower[0].name, "test fluxes": tower[1].name}
    (tmp_path / "configs.json").write_text(json.dumps(content), encoding="utf-8")
    rest = ["--config", str(tmp_path / "configs.json"), "--quiet", "--out", str(tmp_path / "out")]
    assert main(["canveg", "evaluate", str(bundle), *rest]) == 0
    assert main(["canveg", "evaluate", str(bundle), *rest, "--part", "training"]) == 2
    assert "training forcings: there is no file" in capsys.readouterr().err
    # the published model itself, its files found by name in another folder
    (tmp_path / "US-Bi1").mkdir()
    for path, kind in zip(tower, ("forcings", "fluxes"), strict=True):
        (tmp_path / "US-Bi1" / f"US-Bi1-{kind}-test.csv").write_bytes(path.read_bytes())
    options = ["--data", str(tmp_path), "--quiet", "--out", str(tmp_path / "published")]
    assert main(["canveg", "evaluate", str(folder), *options]) == 0
    assert "| Hybrid-1L-0.5 | NEE | " in (tmp_path / "published" / "scores.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_figures")
def test_a_recipe_names_the_tower_and_what_is_judged(
    bundle: Path, tower: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = {
        "output": "run",
        "tower": {
            "forcing": tower[0].name,
            "fluxes": tower[1].name,
            "blocks": {"train": 1.0, "validation": 0.5, "test": 0.5},
            "gap": 0.0,
        },
        "site": SITE._asdict(),
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    rest = ["--config", str(tmp_path / "recipe.yaml"), "--quiet", "--out", str(tmp_path / "out")]

    def steps(*options: str) -> int:
        assert main(["canveg", "evaluate", str(bundle), *rest, *options]) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        return int(summary["models"]["small"]["scores"]["latent_heat"]["all"]["steps"])

    assert 0 < steps() <= 48
    assert steps("--part", "training") > steps()
    assert steps("--period", "2020-07-01..2020-07-02") < steps()


def test_training_is_handed_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def train(recipe: Path, **options: Any) -> Path | None:
        asked.update(options, recipe=recipe)
        return None if options["resume"] else tmp_path / "bundle"

    monkeypatch.setattr(training, "train_from_recipe", train)
    assert main(["canveg", "train", "recipe.yaml", "--output", "run", "--quiet"]) == 0
    assert asked == {"recipe": Path("recipe.yaml"), "output": Path("run"), "resume": False, "progress": False}
    assert f"trained model: {tmp_path / 'bundle'}" in capsys.readouterr().out
    assert main(["canveg", "train", "recipe.yaml", "--resume"]) == 130
    assert "--resume goes on from there" in capsys.readouterr().err


def test_sensitivity_is_written(
    bundle: Path, tower: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sensitivity"
    options = ["--forcing", str(tower[0]), "--period", "2020-07-02..2020-07-03", "--quiet", "--out", str(out)]
    assert main(["canveg", "sensitivity", str(bundle), *options, "--by-step"]) == 0
    assert "latent_heat: conductance_slope +1.5" in capsys.readouterr().out
    assert (out / "derivatives.csv").is_file()
    assert (out / "elasticities.png").is_file()
    assert (out / "sensitivity_by_hour.png").is_file()


def test_mistakes_are_sentences(
    bundle: Path, tower: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--forcing", str(tower[0]), "--fluxes", str(tower[1]), "--quiet"]
    for options, sentence in (
        ([str(bundle)], "which tower? Give --forcing and --fluxes, or --config"),
        ([str(bundle), str(bundle), *files], "two of the models are called 'small'"),
        ([str(bundle), *files, "--blocks", "train=10"], "one of the blocks must be 'test'"),
        ([str(bundle), *files, "--blocks", "test"], "blocks are needed such as train=10"),
        ([str(bundle), *files, "--period", "yesterday"], "'yesterday' is no period"),
        ([str(bundle), *files, "--period", "2020-07-01"], "'2020-07-01' is no period"),
        ([str(bundle), *files, "--period", "1999-01-01..1999-02-01"], "the forcing of US-Xxx lasts from"),
        ([str(tmp_path / "nothing"), *files], "there is no such folder"),
    ):
        assert main(["canveg", "evaluate", *options]) == 2, options
        assert sentence in capsys.readouterr().err
