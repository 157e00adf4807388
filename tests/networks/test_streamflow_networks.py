"""Streamflow networks: equal to neuralhydrology's own results, pure, and the same by steps as over a series."""

import numpy as np
import pytest
import torch
from neuralhydrology_folders import cases, write_reference

from bmi_components.importers import import_neuralhydrology, load_model
from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.heads import HEADS, asymmetric_laplace_moments, mixture_moments
from bmi_components.lstm.layers import Layer, Layers, fold_linear
from bmi_components.lstm.mass_conserving import MassConservingNetwork, mass_conserving_cell
from bmi_components.lstm.multi_timescale import MultiTimescaleNetwork
from bmi_components.lstm.networks import make_network
from bmi_components.lstm.recurrent import RecurrentNetwork, Scaling, Statistics
from bmi_components.lstm.simple_hydrology import PARAMETER_RANGES, Stores, simple_hydrology
from bmi_components.lstm.streamflow import StreamflowLSTM
from bmi_components.trained_model import TrainedModel

HOURLY = {"units": {"runoff": "mm h-1"}}
SINGLE = [case for case in cases() if not case.startswith("mts")]


def step_by_step(network, forcing, attributes, feedback=None):
    """Return runoff ``[time, catchment]`` by steps, as neuralhydrology's own loops compute it."""
    state, static = network.initial_state(forcing.shape[1]), network.static_features(attributes)
    runoff = []
    for t in range(len(forcing)):
        state, raw = network.step(state, forcing[t], static, None if feedback is None else feedback[t])
        runoff.append(network.runoff(raw, attributes)[0])
    return torch.stack(runoff)


# neuralhydrology's tester on trained runs ------------------------------------------------------------------------


@pytest.fixture
def golden(shared_data):
    return shared_data / "golden" / "lstm"


def windows(series, length, first, number):
    """Return ``[length, number, ...]``: the windows that end at each step from ``first`` on."""
    unfolded = torch.as_tensor(series).unfold(0, length, 1).movedim(-1, 0)
    return unfolded[:, first - length + 1 : first - length + 1 + number].contiguous()


def evaluation(arrays, network, length, dtype=torch.float32):
    """Return windows, attributes and feedback of a golden file."""
    columns = [list(arrays["cols"]).index(name) for name in network.forcing_names]
    first = int(np.searchsorted(arrays["df_dates"], arrays["dates"][0]))
    number = len(arrays["dates"])
    forcing = windows(torch.tensor(arrays["inputs"][:, columns], dtype=dtype), length, first, number)
    by_name = dict(zip(arrays["static_names"], arrays["statics"], strict=True))
    attributes = torch.tensor([[by_name[name] for name in network.attribute_names]], dtype=dtype)
    feedback = None
    if network.feedback:
        late = np.concatenate((np.full(network.feedback, np.nan), arrays["qobs"][: -network.feedback]))
        feedback = windows(torch.tensor(late, dtype=dtype), length, first, number)
    return forcing, attributes.expand(number, -1), feedback


@pytest.mark.parametrize("run", ["cudalstm", "cudalstm_emb", "ealstm", "gru", "arlstm"])
def test_windows_equal_neuralhydrologys_tester(golden, run):
    with np.load(golden / f"nh_{run}.npz") as arrays:
        model = import_neuralhydrology(golden / "nh_run_dirs" / run)
        network = make_network(model)
        given = evaluation(arrays, network, model.hyperparameters["sequence_length"])
        np.testing.assert_allclose(step_by_step(network, *given)[-1], arrays["sim"], rtol=0, atol=1e-6)
        # the golden numbers are float32, up to 1.3e-6 from the exact result; so is a series in other order
        np.testing.assert_allclose(network.simulate(*given)[-1], arrays["sim"], rtol=0, atol=2e-6)
        exact = make_network(model, torch.float64)
        given = evaluation(arrays, exact, model.hyperparameters["sequence_length"], torch.float64)
        np.testing.assert_allclose(exact.simulate(*given)[-1], arrays["sim"], rtol=0, atol=1.5e-6)


def test_a_run_of_version_113_reads_as_its_tensors_say(golden):
    """There is no result of this run; its layout differs from that of 1.11 in one name."""
    new = import_neuralhydrology(golden / "nh_run_dirs" / "nh113_cudalstm_emb")
    old = import_neuralhydrology(golden / "nh_run_dirs" / "cudalstm_emb")
    assert {n: a.shape for n, a in new.weights.items()} == {n: a.shape for n, a in old.weights.items()}
    assert new.hyperparameters == old.hyperparameters
    forcing = torch.tensor([[[3.0, 12.0, 4.0, 300.0, 900.0]]])
    attributes = torch.tensor([[0.6, 90.0, 18.0]])
    assert make_network(new).simulate(forcing, attributes).isfinite().all()


def test_the_mass_conserving_lstm_equals_neuralhydrologys_in_its_batches(golden):
    with np.load(golden / "nh_mclstm.npz") as arrays:
        model = import_neuralhydrology(golden / "nh_run_dirs" / "mclstm")
        network, exact = make_network(model), make_network(model, torch.float64)
        forcing, attributes, _ = evaluation(arrays, network, 60)
        # attributes are standardised in float64 there, the rest is float32
        static = exact.static_features(evaluation(arrays, exact, 60, torch.float64)[1]).float()
        simulated = []
        for start in range(0, forcing.shape[1], 256):
            batch = slice(start, start + 256)
            (cells,) = network.initial_state(len(static[batch]))
            for step in network.standardise(forcing[:, batch]):
                auxiliary = torch.cat((step[:, 1:], static[batch]), dim=1)
                cells, outgoing = mass_conserving_cell(
                    step[:, 0], auxiliary, cells, network.weights, company=None
                )
            simulated.append(outgoing[:, 1:].sum(1))
        # 1e-6, and where runoff is above 8 mm d-1 the distance of neighbouring float32 numbers
        np.testing.assert_allclose(torch.cat(simulated), arrays["sim"], rtol=1.2e-7, atol=1e-6)

        # alone, a catchment comes closer to this by standing for a batch than by standing for itself
        errors = {}
        for company in (1, 256):
            network.company = company
            alone = network.simulate(forcing, attributes)[-1].numpy()
            errors[company] = np.sqrt(np.mean((alone - arrays["sim"]) ** 2))
        assert errors[256] < 0.05 < 0.5 < errors[1]


@pytest.mark.parametrize("run", ["mtslstm", "mtslstm_perfreq", "smtslstm"])
def test_two_timescales_equal_neuralhydrologys_tester(golden, run):
    with np.load(golden / f"nh_{run}.npz") as arrays:
        network = make_network(import_neuralhydrology(golden / "nh_run_dirs" / run, **HOURLY))
        assert isinstance(network, MultiTimescaleNetwork)
        columns = [list(arrays["cols"]).index(name) for name in network.forcing_names]
        hourly = torch.tensor(arrays["hourly_inputs"][:, columns], dtype=torch.float32)
        daily = hourly.view(-1, network.ratio, len(columns)).mean(1)
        number = len(arrays["dates"])
        first = int((arrays["dates"][0] - np.datetime64("2015-12-01")) / np.timedelta64(1, "D"))
        last_hour = (first + 1) * network.ratio - 1
        slow = windows(daily[:, network.slow_columns], network.slow_window, first, number)
        fast = windows(
            hourly[:, network.fast_columns], network.fast_window, last_hour, number * network.ratio
        )
        by_name = dict(zip(arrays["static_names"], arrays["statics"], strict=True))
        attributes = torch.tensor([[by_name[name] for name in network.attribute_names]], dtype=torch.float32)
        days, hours = network.simulate(slow, fast[:, :: network.ratio], attributes.expand(number, -1))
    with np.load(golden / f"nh_{run}.npz") as arrays:
        np.testing.assert_allclose(days[-1], arrays["sim_daily"][:, 0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(hours[-24:].T, arrays["sim_hourly"], rtol=0, atol=1e-6)


def test_noaas_run_with_carried_state(golden, shared_data):
    model = import_neuralhydrology(shared_data / "checkpoints" / "noaa_lstm_aorc_hourly")
    network = make_network(model)
    with np.load(golden / "noaa_cat67_2in.npz") as arrays:
        columns = [arrays[f"forcing_{name}"] for name in network.forcing_names]
        forcing = torch.tensor(np.stack(columns, axis=-1), dtype=torch.float32)[:, None]
        assert network.attribute_names == ("elev_mean", "slope_mean")
        attributes = torch.tensor([[316.713505221, 5.07506774]])
        static = network.static_features(attributes)
        (h, c), raw = network.run(network.initial_state(1), forcing, static)
        depth = network.runoff(raw, attributes)[0][:, 0].clamp_min(0.0).double() / 1000.0
        np.testing.assert_allclose(depth, arrays["runoff_depth_m"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(h, arrays["h_last"], rtol=0, atol=5e-5)
        np.testing.assert_allclose(c, arrays["c_last"], rtol=1e-4, atol=1e-4)


# neuralhydrology's own classes with random weights ------------------------------------------------------------------


def case_of(folder, case, dtype=torch.float64, **options):
    """Return network, forcing, attributes and feedback of a case of the reference file."""
    arrays = write_reference(folder, case)
    network = make_network(import_neuralhydrology(folder, **options), dtype)
    attributes = torch.tensor(arrays["a"], dtype=dtype)
    if "basins" in arrays:
        attributes = torch.cat((attributes, torch.eye(len(attributes), dtype=dtype)), dim=1)
    if "names" not in arrays:
        return network, torch.tensor(arrays["x"], dtype=dtype).transpose(0, 1), attributes, None, arrays
    columns = [list(arrays["names"]).index(name) for name in network.forcing_names]
    forcing = torch.tensor(arrays["x"][:, :, columns], dtype=dtype).transpose(0, 1)
    feedback = torch.tensor(arrays["observed"], dtype=dtype).T if "observed" in arrays else None
    return network, forcing, attributes, feedback, arrays


@pytest.mark.parametrize("case", [c for c in SINGLE if c not in ("gmm", "cmal", "umal")])
def test_networks_equal_neuralhydrologys_classes(tmp_path, case):
    network, forcing, attributes, feedback, arrays = case_of(tmp_path, case)
    simulated = network.simulate(forcing, attributes, feedback).T
    first = arrays["x"].shape[1] - arrays["y/QObs(mm/d)"].shape[1]  # the hybrid's warm-up has no result
    np.testing.assert_allclose(simulated[:, first:], arrays["y/QObs(mm/d)"], rtol=2e-6, atol=2e-6)


def test_another_target_is_another_row_of_the_head(tmp_path):
    write_reference(tmp_path, "two_targets")
    options = {"target": "swe(mm)", "units": {"swe(mm)": "mm d-1"}}  # a name, not a meaning
    network, forcing, attributes, _, arrays = case_of(tmp_path, "two_targets", **options)
    simulated = network.simulate(forcing, attributes).T
    np.testing.assert_allclose(simulated, arrays["y/swe(mm)"], rtol=2e-6, atol=2e-5)


def test_embedded_layers_of_both_spellings(tmp_path):
    network, forcing, attributes, _, _ = case_of(tmp_path, "cudalstm_embedded")
    checkpoint = tmp_path / "model_epoch002.pt"
    weights = torch.load(checkpoint, weights_only=True)
    renamed = {n.replace("dynamics_embeddings.0", "dynamics_embedding"): t for n, t in weights.items()}
    assert renamed.keys() != weights.keys()
    torch.save(renamed, checkpoint)
    older = make_network(import_neuralhydrology(tmp_path), torch.float64)
    assert torch.equal(older.simulate(forcing, attributes), network.simulate(forcing, attributes))


def test_two_timescales_with_embeddings(tmp_path):
    network, hours, attributes, _, arrays = case_of(tmp_path, "mtslstm_embedded")
    days = hours.unflatten(0, (-1, 24)).mean(1)
    slow, fast = network.simulate(
        days[:, :, network.slow_columns], hours[-network.fast_window :, :, network.fast_columns], attributes
    )
    np.testing.assert_allclose(slow.T, arrays["y_1D"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(fast.T, arrays["y_1h"], rtol=2e-6, atol=2e-6)


def scaled(network, mean, spread):
    return mean * float(network.target_std) + float(network.target_mean), spread * float(network.target_std)


def run_distribution(network, forcing, attributes):
    static = network.static_features(attributes)
    _, raw = network.run(network.initial_state(forcing.shape[1]), forcing, static)
    return network.runoff(raw, attributes)


def test_a_gaussian_mixture(tmp_path):
    network, forcing, attributes, _, arrays = case_of(tmp_path, "gmm")
    mean, spread = run_distribution(network, forcing, attributes)
    # of two targets with two components each: the first target's
    mu, sigma, weight = (arrays[f"distribution/{n}"][..., :2].astype(float) for n in ("mu", "sigma", "pi"))
    weight /= weight.sum(-1, keepdims=True)
    centre = (weight * mu).sum(-1)
    deviation = np.sqrt((weight * (sigma**2 + mu**2)).sum(-1) - centre**2)
    expected = scaled(network, centre, deviation)
    np.testing.assert_allclose(mean.T, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spread.T, expected[1], rtol=1e-5)


def test_a_mixture_of_asymmetric_laplacians(tmp_path):
    network, forcing, attributes, _, arrays = case_of(tmp_path, "cmal")
    mean, spread = run_distribution(network, forcing, attributes)
    mu, b, tau, weight = (arrays[f"distribution/{n}"].astype(float) for n in ("mu", "b", "tau", "pi"))
    weight /= weight.sum(-1, keepdims=True)
    means = mu + b * (1 - 2 * tau) / (tau * (1 - tau))
    variances = b**2 * (1 - 2 * tau + 2 * tau**2) / (tau * (1 - tau)) ** 2  # Yu and Zhang (2005)
    centre = (weight * means).sum(-1)
    expected = scaled(network, centre, np.sqrt((weight * (variances + means**2)).sum(-1) - centre**2))
    np.testing.assert_allclose(mean.T, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spread.T, expected[1], rtol=1e-5)


@pytest.mark.parametrize("case", ["gmm", "cmal"])
def test_mean_and_spread_are_those_of_neuralhydrologys_samples(tmp_path, case):
    network, forcing, attributes, _, arrays = case_of(tmp_path, case)
    mean, spread = run_distribution(network, forcing, attributes)
    error = spread[:, 0].numpy() / np.sqrt(200_000)
    assert np.all(np.abs(mean[:, 0].numpy() - arrays["sampled_mean"]) < 4.5 * error)
    np.testing.assert_allclose(spread[:, 0], arrays["sampled_std"], rtol=0.02)


def test_uncountable_laplacians_at_a_grid_of_asymmetries(tmp_path):
    network, forcing, attributes, _, arrays = case_of(tmp_path, "umal")
    mean, spread = run_distribution(network, forcing, attributes)
    # [catchment * tau, time, 1]
    mu, b = (
        arrays[f"distribution/{n}"][..., 0].reshape(3, 4, -1).transpose(0, 2, 1).astype(float)
        for n in ("mu", "b")
    )
    tau = 0.1 + 0.8 * (np.arange(4) + 0.5) / 4
    means = mu + b * (1 - 2 * tau) / (tau * (1 - tau))
    variances = b**2 * (1 - 2 * tau + 2 * tau**2) / (tau * (1 - tau)) ** 2
    centre = means.mean(-1)
    expected = scaled(network, centre, np.sqrt((variances + means**2).mean(-1) - centre**2))
    np.testing.assert_allclose(mean.T, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spread.T, expected[1], rtol=1e-5)


# What every network promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SINGLE)
def test_a_series_equals_its_steps_and_touches_no_state(tmp_path, case):
    network, forcing, attributes, feedback, _ = case_of(tmp_path, case)
    assert isinstance(network, RecurrentNetwork)
    whole = network.simulate(forcing, attributes, feedback)
    torch.testing.assert_close(step_by_step(network, forcing, attributes, feedback), whole)
    state = network.initial_state(forcing.shape[1])
    assert len(state) == len(network.state_names)
    before = [tensor.clone() for tensor in state]
    static = network.static_features(attributes)
    half = len(forcing) // 2
    halves = (slice(0, half), slice(half, None))
    raws, later = [], state
    for part in halves:
        later, raw = network.run(later, forcing[part], static, None if feedback is None else feedback[part])
        raws.append(raw)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    torch.testing.assert_close(network.runoff(torch.cat(raws), attributes)[0], whole)


@pytest.mark.parametrize("case", SINGLE)
def test_a_catchment_does_not_know_its_company(tmp_path, case):
    network, forcing, attributes, feedback, _ = case_of(tmp_path, case)
    together = network.simulate(forcing, attributes, feedback)
    for i in range(forcing.shape[1]):
        one = slice(i, i + 1)
        alone = network.simulate(
            forcing[:, one], attributes[one], None if feedback is None else feedback[:, one]
        )
        torch.testing.assert_close(alone, together[:, one])


@pytest.mark.parametrize("case", SINGLE)
def test_both_precisions_and_gradients(tmp_path, case):
    network, forcing, attributes, feedback, _ = case_of(tmp_path, case)
    single = make_network(import_neuralhydrology(tmp_path))
    low = single.simulate(forcing.float(), attributes.float(), None if feedback is None else feedback.float())
    assert low.dtype == torch.float32
    torch.testing.assert_close(
        low.double(), network.simulate(forcing, attributes, feedback), rtol=1e-4, atol=1e-4
    )
    weather = forcing.clone().requires_grad_()
    network.simulate(weather, attributes, feedback)[-1].sum().backward()
    assert weather.grad.isfinite().all()
    assert weather.grad.abs().sum() > 0


@pytest.mark.parametrize("case", SINGLE)
def test_nothing_of_a_network_stays_behind_on_the_cpu(tmp_path, case):
    network, forcing, attributes, feedback, _ = case_of(tmp_path, case)
    network = network.to("meta")  # a device without memory, which refuses tensors of others
    given = [None if tensor is None else tensor.to("meta") for tensor in (forcing, attributes, feedback)]
    assert network.simulate(*given).device.type == "meta"


def test_a_network_that_is_fed_observations_believes_them_and_itself_without_them(tmp_path):
    network, forcing, attributes, feedback, _ = case_of(tmp_path, "arlstm")
    assert network.feedback == 2
    nothing = torch.full_like(feedback, torch.nan)
    alone = network.simulate(forcing, attributes)
    torch.testing.assert_close(network.simulate(forcing, attributes, nothing), alone)
    assert not torch.allclose(network.simulate(forcing, attributes, feedback), alone)


def test_our_own_streamflow_lstm_is_a_gated_network():
    bundle = TrainedModel.load("models/streamflow_lstm")
    ours = StreamflowLSTM.from_bundle(bundle)
    network = make_network(bundle)
    assert isinstance(network, GatedNetwork)
    generator = torch.Generator().manual_seed(5)
    forcing = network.forcing_mean + network.forcing_std * torch.randn(50, 4, 3, generator=generator)
    spread = 0.3 * torch.randn(4, len(network.attribute_names), generator=generator)
    attributes = network.attribute_mean + network.attribute_std * spread
    with torch.no_grad():
        torch.testing.assert_close(network.simulate(forcing, attributes), ours(forcing, attributes, 0))


def test_our_own_streamflow_lstm_with_an_embedding_sees_the_attributes_in_front(tmp_path):
    normalisation = {
        name: {"mean": 1.0 + i, "std": 2.0 + i}
        for i, name in enumerate(["precipitation", "temperature", "p_mean", "area", "streamflow/p_mean"])
    }
    ours = StreamflowLSTM.create(
        {"hidden": 5, "embedding": 4}, ["precipitation", "temperature"], ["p_mean", "area"], normalisation, 3
    ).eval()
    network = make_network(ours.to_bundle())
    assert network.sees_attributes
    assert [layer.activation for layer in network.front] == ["relu"]
    forcing, attributes = torch.rand(9, 3, 2) * 4, torch.rand(3, 2) + 1.0
    with torch.no_grad():
        torch.testing.assert_close(network.simulate(forcing, attributes), ours(forcing, attributes, 0))


# Parts ------------------------------------------------------------------------------------------------------------


def test_folding_leaves_the_function_as_it_is():
    generator = torch.Generator().manual_seed(1)

    def layer(inputs, outputs, activation):
        weights = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        return Layer(weights, torch.randn(outputs, generator=generator, dtype=torch.float64), activation)

    layers = [layer(3, 4, "linear"), layer(4, 5, "tanh"), layer(5, 2, "linear"), layer(2, 2, "linear")]
    folded = fold_linear(layers)
    assert [one.activation for one in folded] == ["tanh", "linear"]
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(Layers(folded)(x), Layers(layers)(x))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_linear_layers_disappear_in_the_recurrent_layer(cell):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gates, hidden = (4 if cell == "lstm" else 3), 3
    weights = (
        draw(gates * hidden, 4 + 2),
        draw(gates * hidden, hidden),
        draw(gates * hidden),
        draw(gates * hidden),
    )
    described = {
        "cell": cell,
        "readout": (Layer(draw(1, hidden), draw(1)),),
        "forcings": Statistics(("a", "b"), draw(2), torch.ones(2, dtype=torch.float64)),
        "attributes": Statistics(("x", "y", "z"), draw(3), torch.ones(3, dtype=torch.float64)),
        "scaling": Scaling(1.0, 2.0),
    }
    front = (Layer(draw(5, 2), draw(5), "tanh"), Layer(draw(4, 5), draw(4)))
    statics = (Layer(draw(2, 3), draw(2)),)
    network = GatedNetwork(weights=weights, front=front, attribute_layers=statics, **described).double()
    assert [layer.activation for layer in network.front] == ["tanh"]
    assert len(network.attribute_layers) == 0
    forcing, attributes = draw(6, 4, 2), draw(4, 3)
    features = torch.cat(
        (
            Layers(front)(forcing - described["forcings"].mean),
            Layers(statics)(attributes - described["attributes"].mean).expand(6, -1, -1),
        ),
        dim=-1,
    )
    layer = (torch.nn.LSTM if cell == "lstm" else torch.nn.GRU)(6, hidden).double()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    layer.load_state_dict(dict(zip(names, weights, strict=True)))
    with torch.no_grad():
        expected = Layers(described["readout"])(layer(features)[0])[..., 0] * 2.0 + 1.0
        torch.testing.assert_close(network.simulate(forcing, attributes), expected)


def test_moments_of_an_asymmetric_laplacian_by_integration():
    location, scale, tau = (torch.tensor(x, dtype=torch.float64) for x in (0.3, 0.7, 0.2))
    y = torch.linspace(-60.0, 120.0, 400_001, dtype=torch.float64)
    distance = (y - location) / scale
    density = tau * (1 - tau) / scale * torch.exp(-distance * (tau - (distance < 0).double()))
    mean, variance = asymmetric_laplace_moments(location, scale, tau)
    assert torch.trapezoid(density, y) == pytest.approx(1.0, abs=1e-8)
    assert torch.trapezoid(density * y, y) == pytest.approx(float(mean), abs=1e-6)
    assert torch.trapezoid(density * (y - mean) ** 2, y) == pytest.approx(float(variance), rel=1e-6)


def test_a_mixture_of_equals_is_one_of_them():
    ones = torch.ones(3, dtype=torch.float64)
    mean, spread = mixture_moments(ones * 5.0, ones * 2.0, ones * 9.0)
    assert (float(mean), float(spread)) == pytest.approx((2.0, 3.0))


def test_heads_of_one_value_have_no_spread():
    raw = torch.tensor([[-1.0], [2.0]])
    assert {name for name in HEADS if HEADS[name](raw.repeat(1, 12))[1] is None} == {
        "linear",
        "relu",
        "softplus",
    }
    assert HEADS["relu"](raw)[0].tolist() == [0.0, 2.0]


def random_parameters(generator, catchments):
    return tuple(
        low + (high - low) * torch.rand(catchments, generator=generator, dtype=torch.float64)
        for low, high in PARAMETER_RANGES.values()
    )


def test_the_simple_hydrological_model_neither_makes_nor_loses_water():
    """With parameters that stay: a soil whose capacity shrinks below its content is beyond the model's equations."""
    generator = torch.Generator().manual_seed(3)
    parameters = random_parameters(generator, 20)
    stores = Stores(*torch.rand(5, 20, generator=generator, dtype=torch.float64) * 30)
    stores = stores._replace(soil=torch.minimum(stores.soil, parameters[2]))
    rained = flowed = torch.zeros(20, dtype=torch.float64)
    start = sum(stores)
    for _ in range(300):
        rain = torch.rand(20, generator=generator, dtype=torch.float64) * 40
        temperature = torch.randn(20, generator=generator, dtype=torch.float64) * 8
        stores, runoff = simple_hydrology(stores, rain, torch.zeros_like(rain), temperature, parameters)
        rained, flowed = rained + rain, flowed + runoff
        assert all((store >= -1e-12).all() for store in stores)
    torch.testing.assert_close(start + rained, sum(stores) + flowed)


def test_evapotranspiration_only_takes_water_away():
    generator = torch.Generator().manual_seed(4)
    parameters = random_parameters(generator, 50)
    stores = Stores(*torch.rand(5, 50, generator=generator, dtype=torch.float64) * 30)
    weather = (torch.rand(50, generator=generator, dtype=torch.float64) * 20, torch.ones(50).double())
    dry, wet = (
        simple_hydrology(stores, weather[0], potential, weather[1], parameters)
        for potential in (torch.full((50,), 8.0).double(), torch.zeros(50).double())
    )
    assert torch.equal(dry[1], wet[1])
    assert (dry[0].soil <= wet[0].soil).all()
    assert (dry[0].soil >= 0.0).all()


@pytest.mark.parametrize("company", [1, 64])
def test_the_mass_conserving_lstm_neither_makes_nor_loses_water(tmp_path, company):
    network, forcing, attributes, _, _ = case_of(tmp_path, "mclstm")
    assert isinstance(network, MassConservingNetwork)
    static = network.static_features(attributes)
    # a cell that gives to none, its row of the redistribution all below zero, would lose its water
    weights, bias, _ = network.weights.redistribution
    gates = network.weights._replace(redistribution=Layer(weights, bias + 20.0))
    (cells,) = network.initial_state(forcing.shape[1])
    rained = gone = torch.zeros(forcing.shape[1], dtype=torch.float64)
    for step in network.standardise(forcing):
        auxiliary = torch.cat((step[:, 1:], static), dim=1)
        cells, outgoing = mass_conserving_cell(step[:, 0], auxiliary, cells, gates, company)
        rained, gone = rained + step[:, 0], gone + outgoing.sum(1)
    torch.testing.assert_close(cells.sum(1) + gone, rained)


def test_stores_wait_until_the_lstm_has_warmed_up(tmp_path):
    network, forcing, attributes, _, _ = case_of(tmp_path, "hybrid")
    assert network.warm_up == 4
    state, static = network.initial_state(forcing.shape[1]), network.static_features(attributes)
    for t in range(6):
        state, _ = network.step(state, forcing[t], static)
        waits = torch.equal(state[2], network.initial_state(forcing.shape[1])[2])
        assert waits == (t < network.warm_up)


def test_a_run_folder_in_place_is_read_once(golden):
    folder = golden / "nh_run_dirs" / "gru"
    assert load_model(folder) is load_model(folder / "config.yml", kind="neuralhydrology")
