"""The streamflow LSTM: one day at a time equals the whole series, and its bundle is the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.forcing.caravan import BasinDataset
from bmi_components.lstm.streamflow import StreamflowLSTM
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.training.normalisation import compute_normalisation

Make = Callable[..., StreamflowLSTM]


@pytest.fixture
def make(basins: BasinDataset) -> Make:
    """Make models for the six catchments, by hyper-parameters."""
    normalisation = compute_normalisation(basins, np.arange(6), ("2001-01-01", "2002-12-31"))

    def model(seed: int = 0, **hyperparameters: object) -> StreamflowLSTM:
        return StreamflowLSTM.create(
            {"hidden": 8} | hyperparameters, basins.forcing_names, basins.attribute_names, normalisation, seed
        ).eval()

    return model


@pytest.fixture
def inputs(basins: BasinDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(basins.forcing[:60]), torch.from_numpy(basins.attributes)


@pytest.mark.parametrize("options", [{}, {"embedding": 5}, {"runoff_scale": None}], ids=str)
def test_steps_equal_the_series(
    make: Make, inputs: tuple[torch.Tensor, torch.Tensor], options: dict[str, object]
) -> None:
    model, (forcing, attributes) = make(**options), inputs
    with torch.no_grad():
        series = model(forcing, attributes, 10)
        state, days = model.initial_state(6), []
        for day in forcing:
            state, streamflow = model.step(state, day, attributes)
            days.append(streamflow)
    assert series.shape == (50, 6)
    torch.testing.assert_close(torch.stack(days[10:]), series, rtol=1e-5, atol=1e-6)


def test_no_catchment_sees_another(make: Make, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, (forcing, attributes) = make(), inputs
    alone = model(forcing[:, 2:3], attributes[2:3], 0)
    torch.testing.assert_close(model(forcing, attributes, 0)[:, 2:3], alone, rtol=1e-5, atol=1e-6)


def test_streamflow_is_never_negative_but_gradients_flow_in_training(
    make: Make, inputs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model, (forcing, attributes) = make(), inputs
    with torch.no_grad():
        model.head.bias.fill_(-100.0)
    assert (model(forcing, attributes, 0) == 0).all()
    model.train()
    streamflow = model(forcing, attributes, 0)
    assert (streamflow < 0).any()
    streamflow.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_seed_decides_the_weights(make: Make) -> None:
    torch.testing.assert_close(make(seed=3).state_dict(), make(seed=3).state_dict(), rtol=0, atol=0)
    assert not torch.equal(make(seed=3).w_hh, make(seed=4).w_hh)
    hidden = 8
    assert (make(forget_bias=2.0).b_hh[hidden : 2 * hidden] == 2.0).all()


def test_a_saved_bundle_is_the_same_model(
    make: Make, inputs: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    model = make(embedding=5)
    units = [NamedUnits("p_mean", "mm d-1"), NamedUnits("frac_snow", "1")]
    model.to_bundle(attributes=units, provenance={"data": "made up"}, licence="CC0-1.0").save(
        tmp_path / "bundle"
    )
    bundle = TrainedModel.load(tmp_path / "bundle", kind="streamflow_lstm")
    assert bundle.attributes == tuple(units)
    assert torch.equal(StreamflowLSTM.from_bundle(bundle)(*inputs, 5), model(*inputs, 5))


def test_bundles_that_do_not_fit_are_refused(make: Make) -> None:
    bundle = make().to_bundle()
    arguments = {name: getattr(bundle, name) for name in bundle.__dataclass_fields__}
    for change, message in (
        ({"kind": "hbv"}, "'hbv' model"),
        ({"hyperparameters": {"hidden": 9}}, "has shape"),
        ({"hyperparameters": {"layers": 2}}, "does not make a streamflow LSTM"),
        ({"weights": {"w_ih": bundle.weights["w_ih"]}}, "has shape None"),
        ({"normalisation": {}}, "no mean and std"),
    ):
        with pytest.raises(BundleError, match=message):
            StreamflowLSTM.from_bundle(TrainedModel(**arguments | change))


def test_wrong_shapes_are_explained(make: Make, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, (forcing, attributes) = make(), inputs
    with pytest.raises(ValueShapeError, match="forcing has shape"):
        model(forcing[..., :2], attributes, 0)
    with pytest.raises(ValueShapeError, match="attributes have shape"):
        model(forcing, attributes[:3], 0)
    with pytest.raises(ValueShapeError, match="leaves nothing"):
        model(forcing, attributes, 60)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": 0}, "hidden"), ({"dropout": 1.5}, "dropout"), ({"runoff_scale": "aridity"}, "'aridity'")],
)
def test_wrong_hyperparameters_are_explained(make: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**options)
