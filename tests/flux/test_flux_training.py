"""Flux training: it learns, it repeats and resumes bit for bit, it judges honestly, and it says what cannot be done."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from flux_windows import learnable_windows, write_tower

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.climatology import harmonics, smoothed_mean
from bmi_components.lstm.flux.comparison import compare
from bmi_components.lstm.flux.evaluation import train_test_eval
from bmi_components.lstm.flux.folds import group_labels, group_name, make_folds, split_evaluation
from bmi_components.lstm.flux.importance import sequence_importance, slopes, variable_importance
from bmi_components.lstm.flux.models import load_model
from bmi_components.lstm.flux.recipe import (
    Comparison,
    Entrant,
    Fit,
    Folds,
    Importance,
    Recipe,
    Settings,
    Split,
    Tower,
    candidates,
    load_recipe,
)
from bmi_components.lstm.flux.results import (
    write_comparison,
    write_importance,
    write_training,
    write_tuning,
)
from bmi_components.lstm.flux.runs import Run
from bmi_components.lstm.flux.scores import score
from bmi_components.lstm.flux.training import Interrupted, fit_model, window_statistics
from bmi_components.lstm.flux.tuning import best_candidate, tune
from bmi_components.lstm.flux.windows import Windows
from bmi_components.trained_model import TrainedModel
from bmi_components.training.run import TrainingError

QUICK = Fit(learning_rate=0.02, epochs=8, batch=64)
SMALL = Settings(model="lstm", sequence_length=5, sizes={"hidden": 6, "dropout": 0.1}, fit=QUICK)


def skill(settings: Settings, training: Windows, unseen: Windows, seed: int = 0) -> float:
    model = load_model(fit_model(settings, training, seed=seed).bundle)
    return score(model.predict(unseen.inputs), unseen.target).r2


def halves(windows: Windows) -> tuple[Windows, Windows]:
    early = windows.date < np.datetime64("2017-01-01")
    return windows.select(early), windows.select(~early)


def assert_same_weights(one: TrainedModel, other: TrainedModel) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name], err_msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        msgspec.structs.replace(SMALL, fit=msgspec.structs.replace(QUICK, epochs=25)),
        Settings(model="rnn", sizes={"hidden": 8}, fit=msgspec.structs.replace(QUICK, epochs=25)),
        Settings(model="ann", fit=msgspec.structs.replace(QUICK, epochs=40)),
        Settings(
            model="dynamic_ann", sizes={"layers": [8, 6]}, fit=msgspec.structs.replace(QUICK, epochs=40)
        ),
        Settings(model="xlstm_mixer", sizes={"latent": 8, "layers": 1}, fit=QUICK),
        Settings(model="random_forest", sizes={"n_estimators": 30}),
        Settings(model="xgboost", sizes={"n_estimators": 80, "learning_rate": 0.1, "max_depth": 4}),
    ],
    ids=lambda settings: settings.model,
)
def test_every_model_learns_more_than_the_season(settings: Settings) -> None:
    if settings.model == "random_forest":
        pytest.importorskip("sklearn")
    if settings.model == "xgboost":
        pytest.importorskip("xgboost")
    training, unseen = halves(learnable_windows())
    season = score(smoothed_mean(training, unseen), unseen.target).r2
    assert 0.3 < season < 0.9
    assert skill(settings, training, unseen) > season + 0.05


def test_the_same_fit_twice_is_the_same_model_and_another_seed_is_not() -> None:
    training, _ = halves(learnable_windows(800))
    one, again, other = (fit_model(SMALL, training, seed=seed) for seed in (3, 3, 4))
    assert_same_weights(one.bundle, again.bundle)
    assert one.history == again.history
    assert any((one.bundle.weights[n] != other.bundle.weights[n]).any() for n in one.bundle.weights)


@pytest.mark.parametrize(
    "fit",
    [
        QUICK,
        msgspec.structs.replace(QUICK, patience=3, schedule="cosine"),
        msgspec.structs.replace(QUICK, optimiser="sgd", momentum=0.9, drop_last=True, clip=None),
    ],
    ids=["adam", "early stopping", "sgd"],
)
def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(tmp_path: Path, fit: Fit) -> None:
    training, _ = halves(learnable_windows(800))
    settings = msgspec.structs.replace(SMALL, fit=fit)
    whole = fit_model(settings, training, seed=0)
    interrupts: list[int] = []
    epochs = 0

    def stop_after_four() -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 4:
            interrupts.append(2)

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupted):
        fit_model(
            settings, training, seed=0, checkpoint=checkpoint, tick=stop_after_four, interrupts=interrupts
        )
    assert checkpoint.exists()
    resumed = fit_model(settings, training, seed=0, checkpoint=checkpoint)
    assert_same_weights(whole.bundle, resumed.bundle)
    assert whole.history == resumed.history
    assert not checkpoint.exists()


def test_normalisation_comes_from_the_training_windows_alone() -> None:
    training, unseen = halves(learnable_windows())
    bundle = fit_model(msgspec.structs.replace(SMALL, fit=Fit(epochs=1)), training, seed=0).bundle
    light = training.inputs[:, :, 0].astype(np.float64)
    assert bundle.normalisation["PPFD_IN"] == {"mean": light.mean(), "std": light.std()}
    assert bundle.normalisation["NEE"] == {"mean": training.target.mean(), "std": training.target.std()}
    assert abs(light.mean() - unseen.inputs[:, :, 0].mean()) > 1e-3
    assert bundle.normalisation["DOY"] == {"mean": 0.0, "std": 1.0}  # scaled once and for all
    constant = replace(training, inputs=np.full_like(training.inputs, 7.0))
    assert window_statistics(constant)["PPFD_IN"] == {"mean": 7.0, "std": 1.0}


def test_dlfm_s_way_of_fitting_hardly_learns_where_ours_does() -> None:
    """Plain gradient descent on the raw target, as DLFM has it, after as many epochs."""
    training, unseen = halves(learnable_windows())
    dlfm = Fit(
        optimiser="sgd",
        learning_rate=0.001,
        epochs=8,
        shuffle=False,
        drop_last=True,
        clip=None,
        standardise_target=False,
    )
    theirs = msgspec.structs.replace(SMALL, fit=dlfm)
    assert fit_model(theirs, training, seed=0).bundle.normalisation["NEE"] == {"mean": 0.0, "std": 1.0}
    assert skill(SMALL, training, unseen) > skill(theirs, training, unseen) + 0.2


def test_early_stopping_keeps_the_best_epoch_of_a_year_it_does_not_learn_from() -> None:
    training, _ = halves(learnable_windows())
    settings = msgspec.structs.replace(SMALL, fit=msgspec.structs.replace(QUICK, epochs=200, patience=4))
    fitted = fit_model(settings, training, seed=0)
    errors = fitted.history.validation
    best = int(np.argmin(errors))
    assert len(errors) == best + 5 < 200
    last_year = training.select(training.calendar_year == 2016)
    model = load_model(fitted.bundle)
    assert score(model.predict(last_year.inputs), last_year.target).mse == pytest.approx(
        errors[best], rel=1e-4
    )
    assert fitted.bundle.provenance["epochs"] == best + 1


def test_what_cannot_be_fitted_says_why() -> None:
    training, _ = halves(learnable_windows(400))
    wild = Fit(optimiser="sgd", learning_rate=1e12, epochs=3, clip=None)
    with pytest.raises(TrainingError, match=r"lower fit\.learning_rate"):
        fit_model(msgspec.structs.replace(SMALL, model="dynamic_ann", sizes={}, fit=wild), training, seed=0)
    huge = msgspec.structs.replace(SMALL, fit=Fit(batch=5000, drop_last=True))
    with pytest.raises(ConfigurationError, match="only 396 training windows"):
        fit_model(huge, training, seed=0)
    with pytest.raises(ConfigurationError, match="random_forest sizes"):
        fit_model(Settings(model="random_forest", sizes={"trees": 3}), training, seed=0)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    training, _ = halves(learnable_windows(400))
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(ConfigurationError, match=r"needs the package xgboost.*bmi_components\[flux\]"):
        fit_model(Settings(model="xgboost"), training, seed=0)


def test_climatology_knows_the_season_of_each_tower_and_nothing_else() -> None:
    here, there = learnable_windows(), learnable_windows(seed=1, site="XX-Oth")
    there = replace(there, target=there.target + 100.0)
    both = [
        np.concatenate((getattr(here, n), getattr(there, n))) for n in ("inputs", "target", "date", "site")
    ]
    years = np.concatenate((here.calendar_year, there.calendar_year))
    together = replace(
        here,
        inputs=both[0],
        target=both[1],
        date=both[2],
        site=both[3],
        calendar_year=years,
        season_year=years,
    )
    training, unseen = halves(together)
    for climatology in (smoothed_mean, harmonics):
        predicted = climatology(training, unseen)
        assert (predicted[unseen.site == "XX-Oth"] > 50).all()
        assert score(predicted[unseen.site == "XX-Syn"], unseen.target[unseen.site == "XX-Syn"]).r2 > 0.3
        same = climatology(training, replace(unseen, inputs=unseen.inputs * 0))
        np.testing.assert_array_equal(predicted, same)
    lonely = unseen.select(unseen.site == "XX-Oth")
    with pytest.raises(ConfigurationError, match="XX-Oth: there are no training windows"):
        smoothed_mean(halves(here)[0], lonely)


def test_climatology_far_from_all_training_days_is_that_of_the_nearest() -> None:
    windows = learnable_windows(365)
    spring = windows.select(windows.date < np.datetime64("2015-03-01"))
    july = windows.select(windows.date == np.datetime64("2015-05-10"))
    expected = spring.target[-15:].mean()
    assert smoothed_mean(spring, july)[0] == pytest.approx(expected, abs=1.5)


def test_groups_of_days_hold_together_what_they_name() -> None:
    windows = learnable_windows(800, 1)
    labels = {by: group_labels(windows, by) for by in ("season", "calendar", "july", "month")}  # type: ignore[arg-type]
    at = int(np.flatnonzero(windows.date == np.datetime64("2016-06-30"))[0])
    assert (labels["july"][at], labels["july"][at + 1]) == (2015, 2016)
    assert (labels["month"][at], labels["month"][at + 1]) == (201606, 201607)
    assert (labels["calendar"][at], labels["season"][at]) == (2016, 2016)
    names = [group_name(int(labels[by][at]), by) for by in ("july", "month", "calendar")]  # type: ignore[arg-type]
    assert names == ["2015/16", "2016-06", "2016"]


def test_folds_never_train_on_what_they_hold_out() -> None:
    windows = learnable_windows(800)
    for folds in (Folds(by="july", least=100), Folds(by="month", least=20), Folds(by="calendar", count=2)):
        made = make_folds(windows, folds)
        assert len(made) == (2 if folds.count else len({*made_years(made)}))
        for fold in made:
            held = set(fold.validation.date)
            assert held.isdisjoint(fold.training.date)
            assert {*group_labels(fold.validation, folds.by)} == {fold.year}
            np.testing.assert_array_equal(
                fold.training.calendar_year,
                fold.training.date.astype("datetime64[Y]").astype(int) + 1970,
            )
    with pytest.raises(ConfigurationError, match=r"no july year can be held out.*folds\.least"):
        make_folds(windows, Folds(by="july", least=5000))


def made_years(folds: Sequence[object]) -> list[int]:
    return [fold.year for fold in folds]  # type: ignore[attr-defined]


def test_candidates_are_all_combinations() -> None:
    made = candidates(
        SMALL, {"sequence_length": [3, 7], "sizes.hidden": [4, 8, 9], "fit.learning_rate": [0.1]}
    )
    assert len(made) == 6
    assert [(c.sequence_length, c.sizes["hidden"]) for c in made][:4] == [(3, 4), (3, 8), (3, 9), (7, 4)]
    assert all(c.fit.learning_rate == 0.1 and c.fit.epochs == 8 and c.sizes["dropout"] == 0.1 for c in made)
    assert candidates(SMALL, {}) == [SMALL]
    with pytest.raises(ConfigurationError, match=r"'hidden' cannot be varied"):
        candidates(SMALL, {"hidden": [3]})
    with pytest.raises(ConfigurationError, match="learning_rate"):
        candidates(SMALL, {"fit.learning_rate": [-1.0]})


def recipe(folder: Path, **changes: object) -> Recipe:
    """Two and a half years of a daily tower, models of a second."""
    made = Recipe(
        towers=(Tower(files=(str(write_tower(folder / "XX-Syn.csv", 850)),)),),
        output=str(folder / "run"),
        inputs=("PPFD_IN", "TA_F"),
        target="NEE",
        daily={"day_of_year": True, "ustar": "none"},  # type: ignore[arg-type]
        model=SMALL,
        split=Split(years=1, by="calendar"),
        folds=Folds(by="calendar", least=100),
        final_fits=2,
        importance=Importance(lengths=(1, 5), fits=2),
        licence="CC-BY-4.0",
    )
    plain = msgspec.to_builtins(made) | {key: msgspec.to_builtins(value) for key, value in changes.items()}
    return msgspec.convert(plain, Recipe)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_train_test_eval_writes_what_a_reader_needs(tmp_path: Path) -> None:
    run = Run(recipe(tmp_path, grid={"sizes.hidden": [2, 8]}))
    judged = train_test_eval(run)
    text = write_training(run, judged)
    assert len(judged.tuning) == 2
    assert judged.settings == best_candidate(judged.tuning, run.recipe.folds)
    assert {*judged.evaluation.calendar_year} == {2017}
    assert judged.training.date.max() < judged.evaluation.date.min()
    scores = judged.scores()
    evaluated = scores["mean prediction"][1].r2
    assert evaluated > scores["climatology (smoothed mean)"][1].r2
    assert "climatology" in text
    assert f"{evaluated:.3f}" in text
    for name in ("results.csv", "tuning.csv", "tuning.md", "predictions.csv"):
        assert (run.folder / name).stat().st_size > 100
    for name in ("training_curve", "predictions_training", "predictions_evaluation"):
        assert (run.folder / f"{name}.png").stat().st_size > 5000

    # the bundle is the mean of the fits, and its predictions stand at their dates
    bundle = TrainedModel.load(run.folder / "bundle", kind="flux")
    assert bundle.licence == "CC-BY-4.0"
    assert bundle.hyperparameters["members"] == 2
    assert bundle.hyperparameters["daily"]["day_of_year"] is True
    predicted = load_model(bundle).predict(judged.evaluation.inputs)
    np.testing.assert_allclose(predicted, judged.predicted[1], rtol=1e-5, atol=1e-5)
    written = [row for row in rows(run.folder / "predictions.csv") if row["set"] == "evaluation"]
    at = len(written) // 2
    assert written[at]["date"] == str(judged.evaluation.date[at])
    assert float(written[at]["observed"]) == pytest.approx(judged.evaluation.target[at], rel=1e-4)
    assert float(written[at]["predicted"]) == pytest.approx(predicted[at], rel=1e-4)


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train_test_eval(Run(recipe(tmp_path / "whole", grid={"sizes.hidden": [3, 4]})))
    interrupts: list[int] = []
    stopped = Run(recipe(tmp_path / "broken", grid={"sizes.hidden": [3, 4]}), interrupts=interrupts)
    advance, epochs = stopped._advance, 0

    def count(number: int) -> None:
        nonlocal epochs
        epochs += number
        if epochs == 20:  # in the middle of the third fit
            interrupts.append(2)
        advance(number)

    stopped._advance = count  # type: ignore[method-assign]
    with stopped, pytest.raises(Interrupted):
        train_test_eval(stopped)
    kept = list((stopped.folder / "fits").glob("*/history.json"))
    assert len(kept) == 2
    times = [path.stat().st_mtime_ns for path in kept]
    resumed = train_test_eval(Run(recipe(tmp_path / "broken", grid={"sizes.hidden": [3, 4]})))
    assert [path.stat().st_mtime_ns for path in kept] == times  # not fitted again
    assert_same_weights(whole.bundle, resumed.bundle)
    assert [c.mean_r2 for c in whole.tuning] == [c.mean_r2 for c in resumed.tuning]


def test_a_folder_keeps_to_one_recipe_but_may_be_moved(tmp_path: Path) -> None:
    first = Run(recipe(tmp_path))
    first.folder.rename(tmp_path / "moved")
    Run(recipe(tmp_path, output=str(tmp_path / "moved"), threads=2))
    with pytest.raises(ConfigurationError, match="another recipe"):
        Run(recipe(tmp_path, output=str(tmp_path / "moved"), seed=1))


def test_tuning_table_names_what_differs(tmp_path: Path) -> None:
    run = Run(recipe(tmp_path, grid={"sequence_length": [1, 5], "sizes.hidden": [3]}))
    results = tune(run)
    write_tuning(run, results)
    table = rows(run.folder / "tuning.csv")
    assert [row["sequence_length"] for row in table] == ["1", "5"]
    assert [row["best"] for row in table].count("*") == 1
    assert {"R2 2015", "R2 2016", "mean R2", "mean MSE", "pooled R2"} <= set(table[0])
    # the two lengths are judged on the same days
    assert results[0].training_windows == results[1].training_windows


def test_comparison_predicts_only_days_not_seen_and_tunes_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison(
        models={
            "LSTM": Entrant(sequence_length=3, sizes={"hidden": 4}, fit=QUICK, grid={"sizes.hidden": [2, 4]}),
            "ANN": Entrant(model="ann", sequence_length=5, fit=QUICK),
        },
        folds=Folds(by="calendar", least=100),
        inner=Folds(by="calendar", least=100),
        seeds=2,
    )
    run = Run(recipe(tmp_path, compare=comparison))
    seen: list[tuple[set[object], set[object]]] = []
    fit = run.fit

    def watch(settings: Settings, training: Windows, seed: int) -> object:
        years = {*training.calendar_year}
        seen.append((years, {settings.model}))
        return fit(settings, training, seed)

    monkeypatch.setattr(run, "fit", watch)
    results = {result.name: result for result in compare(run)}
    assert {"LSTM", "ANN", "climatology (smoothed mean)"} <= set(results)
    first = next(iter(results.values()))
    assert all((r.windows.date == first.windows.date).all() for r in results.values())
    assert all(years < {2015, 2016, 2017} for years, _ in seen)
    assert set(results["LSTM"].chosen) == {"2015", "2016", "2017"}
    assert results["LSTM"].scores().r2 > results["climatology (smoothed mean)"].scores().r2
    text = write_comparison(run, list(results.values()))
    assert "XX-Syn R2" in text
    assert (run.folder / "comparison.png").exists()
    assert len(rows(run.folder / "comparison_predictions.csv")) == len(first.windows)
    with pytest.raises(ConfigurationError, match="nothing under 'compare'"):
        compare(Run(recipe(tmp_path, output=str(tmp_path / "other"))))


def test_sequence_importance_compares_the_same_days(tmp_path: Path) -> None:
    run = Run(recipe(tmp_path))
    importance = sequence_importance(run, SMALL)
    assert importance.lengths == (1, 5)
    mean, half_width = importance.band("evaluation", "r2")
    assert mean.shape == half_width.shape == (2,)
    values = importance.scores["evaluation"]["r2"]
    np.testing.assert_allclose(half_width, 1.96 * values.std(axis=1, ddof=1) / np.sqrt(2))
    one, five = run.windows(1, 5), run.windows(5, 5)
    np.testing.assert_array_equal(one.date, five.date)
    assert mean[1] > mean[0]  # yesterday's warmth matters, by construction
    write_importance(run, importance, None)
    assert [row["sequence length"] for row in rows(run.folder / "sequence_importance.csv")] == ["1", "5"]


def test_variable_importance_finds_what_was_put_in(tmp_path: Path) -> None:
    windows = learnable_windows()
    training, unseen = halves(windows)
    settings = msgspec.structs.replace(SMALL, fit=msgspec.structs.replace(QUICK, epochs=30))
    model = load_model(fit_model(settings, training, seed=0).bundle)
    importance = variable_importance(model, unseen)
    assert importance.variance.shape == (5, 3)
    light, warmth = importance.variance[:, 0], importance.variance[:, 1]
    assert light[0] == light.max()  # only today's light counts
    assert light[0] > 5 * light[3]
    assert warmth[:3].sum() > 3 * warmth[3:].sum()  # warmth of three days
    run = Run(recipe(tmp_path))
    write_importance(run, None, importance)
    assert (run.folder / "variable_importance.png").exists()
    table = rows(run.folder / "variable_importance.csv")
    assert float(table[0]["PPFD_IN"]) == pytest.approx(light[0], rel=1e-4)


def test_slopes_of_trees_are_differences_over_a_standard_deviation() -> None:
    pytest.importorskip("sklearn")
    training, unseen = halves(learnable_windows())
    forest = fit_model(Settings(model="random_forest", sizes={"n_estimators": 50}), training, seed=0).bundle
    found = slopes(load_model(forest), unseen.inputs)
    today = found[:, -1, 0].mean()
    light = unseen.inputs[:, -1, 0]
    expected = np.polyfit(light, unseen.target, 1)[0] * forest.normalisation["PPFD_IN"]["std"]
    assert today < 0
    assert 0.2 < today / expected < 1.5
    assert np.abs(found[:, 0, 0]).mean() < 0.2 * np.abs(found[:, -1, 0]).mean()


def test_recipes_are_read_and_wrong_ones_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tower(tmp_path / "tower.csv", 30)
    monkeypatch.setenv("TOWERS", str(tmp_path))
    file = tmp_path / "recipe.yaml"
    good = "towers: [{files: [$TOWERS/tower.csv]}]\noutput: run\nmodel: {model: ann, sequence_length: 1}\n"
    file.write_text(good, encoding="utf-8")
    assert load_recipe(file).towers[0].files == (str((tmp_path / "tower.csv").resolve()),)
    for more, message in (
        ("towres: []", "towres"),
        ("grid: {sizes.hidden: []}", "grid"),
        ("grid: {layers: [1]}", "cannot be varied"),
        ("split: {years: 0}", "split.years"),
        ("compare: {models: {x: {model: oracle}}}", "oracle"),
        ("compare: {models: {x: {grid: {layers: [1]}}}}", "cannot be varied"),
    ):
        file.write_text(good + more, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=message) as error:
            load_recipe(file)
        assert str(file) in str(error.value)
    file.write_text(good.replace("$TOWERS", "$NOWHERE_AT_ALL"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="environment variable that is not set"):
        load_recipe(file)


def test_evaluation_years_are_the_last_ones() -> None:
    windows = learnable_windows(1100)
    training, evaluation = split_evaluation(windows, Split(years=1, by="july"))
    assert training.date.max() == np.datetime64("2017-06-30")
    assert evaluation.date.min() == np.datetime64("2017-07-01")


def test_the_recipes_that_ship_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMERIFLUX", "/nowhere")
    found = sorted((Path(__file__).parents[2] / "configs").glob("train_flux_*.yaml"))
    assert len(found) == 6
    outputs = {load_recipe(path).output for path in found}
    assert len(outputs) == 6
