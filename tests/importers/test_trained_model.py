"""A bundle comes back as it was saved, is shared, and anything wrong with it is one clear error."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.errors import BundleError
from bmi_components.importers import load_model
from bmi_components.trained_model import NamedUnits, TrainedModel, forget_shared_models


def make(seed=0, **changes):
    random = np.random.default_rng(seed)
    model = TrainedModel(
        kind="hbv",
        hyperparameters={"physics": "1.1p", "components": 4, "dynamic_parameters": ["BETA"], "rate": 1e-5},
        inputs=(NamedUnits("precipitation", "mm d-1"), NamedUnits("temperature", "degC")),
        attributes=(NamedUnits("aridity", "1"),),
        outputs=(NamedUnits("streamflow", "mm d-1"),),
        normalisation={
            "precipitation": {"mean": 3.2, "std": np.float64(7.1)},
            "temperature": {"mean": 10, "std": 9.5},
        },
        time_step=86400,
        provenance={"period": [date(1980, 10, 1), date(1995, 9, 30)], "seed": np.int64(3), "nse": None},
        licence="CC-BY-4.0",
        weights={
            "lstm.w_ih": random.normal(size=(8, 3)).astype(np.float32),
            "scalar": np.float64(1.5) * np.ones(()),
            "bias": random.normal(size=5),
        },
    )
    return replace(model, **changes)


@pytest.fixture(autouse=True)
def _nothing_shared():
    forget_shared_models()
    yield
    forget_shared_models()


@pytest.fixture
def bundle(tmp_path):
    return make().save(tmp_path / "bundle")


def assert_same(a, b):
    assert (a.kind, a.time_step, a.licence) == (b.kind, b.time_step, b.licence)
    assert (a.inputs, a.attributes, a.outputs) == (b.inputs, b.attributes, b.outputs)
    for field in ("hyperparameters", "normalisation", "provenance"):
        assert getattr(a, field) == getattr(b, field)
    assert set(a.weights) == set(b.weights)
    for name in a.weights:
        assert a.weights[name].dtype == b.weights[name].dtype
        np.testing.assert_array_equal(a.weights[name], b.weights[name])


def test_a_bundle_comes_back_as_it_was_saved(tmp_path):
    model = make()
    folder = model.save(tmp_path / "bundle", card="# A card\n")
    loaded = TrainedModel.load(folder, kind="hbv")
    assert_same(loaded, model)
    assert loaded.identity == model.identity
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "model.yaml",
        "weights.safetensors",
    ]
    assert (folder / "README.md").read_text() == "# A card\n"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_all_users_share_one_copy(bundle, tmp_path, monkeypatch):
    model = TrainedModel.load(bundle)
    assert TrainedModel.load(str(bundle)) is model
    assert load_model(bundle, kind="hbv") is model
    (tmp_path / "link").symlink_to(bundle)
    assert TrainedModel.load(tmp_path / "link") is model
    monkeypatch.chdir(tmp_path)
    assert TrainedModel.load("bundle") is model


def test_a_bundle_that_changed_is_read_again(bundle):
    first = TrainedModel.load(bundle)
    make(seed=1).save(bundle, overwrite=True)
    second = TrainedModel.load(bundle)
    assert second.identity != first.identity
    assert not np.array_equal(first.weights["bias"], second.weights["bias"])


def test_a_shared_model_cannot_be_changed(bundle):
    model = TrainedModel.load(bundle)
    with pytest.raises(ValueError, match="read-only"):
        model.weights["bias"][0] = 0.0
    for mapping in (model.weights, model.hyperparameters, model.normalisation["precipitation"]):
        with pytest.raises(TypeError):
            mapping["new"] = 1
    with pytest.raises(AttributeError):
        model.kind = "other"


def test_making_a_model_leaves_the_given_arrays_writable():
    array = np.ones(3)
    make(weights={"a": array})
    array[0] = 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "streamflow_lstm"},
        {"time_step": 3600.0},
        {"hyperparameters": {"physics": "1.0"}},
        {"normalisation": {"precipitation": {"mean": 3.2, "std": 7.2}}},
        {"attributes": ()},
        {"weights": {"bias": np.zeros(5)}},
    ],
)
def test_identity_tells_models_apart(changes):
    assert make(**changes).identity != make().identity
    assert make(licence="other", provenance={}).identity == make().identity


def test_saving_the_same_model_again_changes_nothing(bundle):
    def written() -> tuple[int, int]:  # by whom it was read does not matter
        found = (bundle / "model.yaml").stat()
        return found.st_ino, found.st_mtime_ns

    before = written()
    make().save(bundle)
    assert written() == before


def test_another_model_replaces_a_bundle_only_on_purpose(bundle):
    with pytest.raises(BundleError, match="another bundle is already there"):
        make(seed=1).save(bundle)
    assert TrainedModel.load(bundle).identity == make().identity
    make(seed=1).save(bundle, overwrite=True)
    assert TrainedModel.load(bundle).identity == make(seed=1).identity


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        make().save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", no_space)
    with pytest.raises(BundleError, match="No space left"):
        make().save(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
    with pytest.raises(BundleError, match="cannot be written"):
        make().save(tmp_path / "absent" / "bundle")


def test_a_bundle_for_another_component(bundle):
    with pytest.raises(BundleError, match=r"kind .hbv.; .streamflow_lstm. is needed"):
        TrainedModel.load(bundle, kind="streamflow_lstm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalisation": {"x": {"mean": 0.0, "std": 0.0}}}, "'x' has mean 0.0 and std 0.0"),
        ({"normalisation": {"x": {"mean": float("nan"), "std": 1.0}}}, "'x' has mean nan"),
        ({"normalisation": {"x": {"mean": 0.0}}}, "'x': object missing required field `std`"),
        ({"weights": {"a": np.array([1.0, np.nan])}}, "weight a holds values that are not finite"),
        ({"weights": {"a": np.array([1])}}, "weight a is of type int64"),
        ({"time_step": 0.0}, "time_step is 0.0"),
        ({"inputs": (NamedUnits("p", "mm"), NamedUnits("p", "m"))}, "inputs names a quantity twice"),
        ({"hyperparameters": {"a": {1, 2}}}, "a set cannot be saved"),
    ],
)
def test_a_model_that_cannot_work_is_refused(changes, message):
    with pytest.raises(BundleError, match=message):
        make(**changes)


def edit(bundle, change):
    file = bundle / "model.yaml"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(extra=1), "unknown field `extra`"),
        (lambda c: c.pop("licence"), "missing required field `licence`"),
        (lambda c: c.update(time_step="a day"), "expected `float`, got `str` at key time_step"),
        (lambda c: c["inputs"][1].update(units=3), r"got `int` at key inputs\[1\]\.units"),
        (lambda c: c["inputs"][0].update(unit="mm"), r"unknown field `unit` at key inputs\[0\]"),
        (lambda c: c["normalisation"]["temperature"].update(mean=None), "normalisation"),
        (lambda c: c.update(format=7), "reads format 1"),
        (lambda c: c["normalisation"]["temperature"].update(mean=10.5), "changed after it was saved"),
        (lambda c: c["hyperparameters"].update(components=5), "changed after it was saved"),
        (lambda c: c["sha256"].update(weights="0" * 64), "sha256"),
    ],
)
def test_a_description_that_is_wrong_says_where(bundle, change, message):
    edit(bundle, change)
    with pytest.raises(BundleError, match=message) as caught:
        TrainedModel.load(bundle)
    assert str(bundle) in str(caught.value)


def test_provenance_and_licence_may_be_edited(bundle):
    edit(bundle, lambda c: c.update(licence="CC0-1.0"))
    assert TrainedModel.load(bundle).licence == "CC0-1.0"


def test_weights_of_another_bundle_are_noticed(bundle, tmp_path):
    other = make(seed=1).save(tmp_path / "other")
    shutil.copy(other / "weights.safetensors", bundle)
    with pytest.raises(BundleError, match=r"not those that model\.yaml describes"):
        TrainedModel.load(bundle)


@pytest.mark.parametrize("name", ["model.yaml", "weights.safetensors"])
def test_an_absent_file(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is absent"):
        TrainedModel.load(bundle)


def test_no_model_at_all(tmp_path):
    with pytest.raises(BundleError, match="no such folder"):
        TrainedModel.load(tmp_path / "nowhere")
    for load in (TrainedModel.load, load_model):
        with pytest.raises(BundleError):
            load(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(bundle):
    (bundle / "model.yaml").chmod(0)
    with pytest.raises(BundleError, match="cannot be read"):
        TrainedModel.load(bundle)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_harmless_never_another_model(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "bundle"
    model = make()
    model.save(folder)
    file = folder / data.draw(st.sampled_from(["model.yaml", "weights.safetensors"]))
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        loaded = TrainedModel.load(folder)
    except BundleError:
        return
    assert file.name == "model.yaml"  # text that says where the model comes from is free
    assert loaded.identity == model.identity
    assert_same(replace(loaded, provenance={}, licence=""), replace(model, provenance={}, licence=""))


@pytest.mark.parametrize("text", ["[" * 3000, "a: &x [*x]", "!!python/object/apply:os.getcwd []", "\x00", ""])
def test_yaml_that_is_no_description(bundle, text):
    (bundle / "model.yaml").write_text(text)
    with pytest.raises(BundleError):
        TrainedModel.load(bundle)


def test_loading_a_bundle_needs_no_torch(bundle):
    program = (
        "import sys; from bmi_components.importers import load_model; "
        f"load_model({str(bundle)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("text", ["01078000", "01031500", "1e3", "12", "0x1F", "yes", "1995-10-01", "3.0"])
def test_text_that_looks_like_a_number_stays_text(tmp_path, text):
    make(provenance={"held_out_gauges": [text]}).save(tmp_path / "bundle")
    assert TrainedModel.load(tmp_path / "bundle").provenance["held_out_gauges"] == [text]
