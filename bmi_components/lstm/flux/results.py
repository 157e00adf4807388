"""What a run leaves to be read: tables in Markdown and CSV, figures, and the bundle with its card."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bmi_components.lstm.flux.comparison import Compared
from bmi_components.lstm.flux.evaluation import Judged
from bmi_components.lstm.flux.folds import group_name
from bmi_components.lstm.flux.importance import SequenceImportance, VariableImportance
from bmi_components.lstm.flux.plots import (
    plot_predictions,
    plot_sequence_importance,
    plot_skill,
    plot_training,
    plot_variable_importance,
)
from bmi_components.lstm.flux.recipe import Settings
from bmi_components.lstm.flux.runs import Run
from bmi_components.lstm.flux.scores import Scores
from bmi_components.lstm.flux.tuning import CandidateScores, best_candidate
from bmi_components.training.files import write_whole

__all__ = [
    "write_comparison",
    "write_importance",
    "write_training",
    "write_tuning",
]

Row = dict[str, Any]


def write_tuning(run: Run, results: Sequence[CandidateScores]) -> str:
    """Write ``tuning.csv`` and ``tuning.md``, a row per candidate; return the Markdown."""
    recipe, best = run.recipe, best_candidate(results, run.recipe.folds)
    rows = []
    for result in results:
        row = _varied(result.settings, [other.settings for other in results])
        row["training windows"] = "/".join(map(str, result.training_windows))
        for year, fold in zip(result.years, result.folds, strict=True):
            row[f"R2 {group_name(year, recipe.folds.by)}"] = fold.r2
        row |= {"mean R2": result.mean_r2, "mean MSE": result.mean_mse, "pooled R2": result.pooled.r2}
        row["best"] = "*" if result.settings == best else ""
        rows.append(row)
    text = (
        f"# Cross-validation of {len(rows)} candidates\n\n"
        f"Each fold holds out one {_unit(recipe.folds.by)} of the training windows. The best has the largest "
        f"{'mean' if recipe.folds.choose == 'mean_r2' else 'pooled'} R2.\n\n{_markdown(rows)}"
    )
    _write(run.folder, "tuning", rows, text)
    return text


def write_training(run: Run, judged: Judged) -> str:
    """Write the results of `train_test_eval`; return the Markdown.

    ``results.md`` and ``results.csv`` (scores on both sets), ``training_curve.png``, ``predictions_training.png``,
    ``predictions_evaluation.png``, ``predictions.csv`` and ``bundle/``; with several candidates also ``tuning.*``.
    """
    folder, units = run.folder, judged.training.target_units
    if judged.tuning:
        write_tuning(run, judged.tuning)
    rows = []
    scores = judged.scores()
    for name, (trained, evaluated) in scores.items():
        rows.append(
            {
                "": name,
                "training R2": trained.r2,
                "training MSE": trained.mse,
                "evaluation R2": evaluated.r2,
                "evaluation MSE": evaluated.mse,
                "evaluation RMSE": evaluated.rmse,
            }
        )
    summary = _summary([pair for name, pair in scores.items() if name.startswith("fit ")])
    text = (
        f"# {judged.settings.model}, {judged.settings.sequence_length} days\n\n"
        f"{_data_sentence(run, judged)}\n\n"
        f"Settings: `{msgspec.json.encode(judged.settings).decode()}`\n\n"
        f"Target {judged.training.target_name} [{units}]; MSE in its units squared.\n\n{_markdown(rows)}\n{summary}"
    )
    _write(folder, "results", rows, text)
    histories = [fit.history for fit in judged.fits]
    if any(history.training for history in histories):
        plot_training(folder / "training_curve.png", histories, units)
    predictions = []
    for part, windows, predicted in (
        ("training", judged.training, judged.predicted[0]),
        ("evaluation", judged.evaluation, judged.predicted[1]),
    ):
        plot_predictions(folder / f"predictions_{part}.png", windows, predicted, f"{part} windows")
        predictions += [
            {"set": part, "site": str(site), "date": str(day), "observed": observed, "predicted": value}
            for site, day, observed, value in zip(
                windows.site, windows.date, windows.target, predicted, strict=True
            )
        ]
    write_whole(folder / "predictions.csv", _csv(predictions))
    bundle = folder / "bundle"
    judged.bundle.save(bundle, card=text, overwrite=bundle.exists())
    return text


def write_importance(
    run: Run, sequence: SequenceImportance | None, variable: VariableImportance | None
) -> None:
    """Write what there is of the two.

    ``sequence_importance.csv``, ``_r2.png`` and ``_mse.png``; ``variable_importance.csv`` and ``.png``.
    """
    folder = run.folder
    if sequence is not None:
        rows: list[Row] = []
        for position, length in enumerate(sequence.lengths):
            row: Row = {"sequence length": length}
            for part in ("evaluation", "training"):
                for metric in ("r2", "mse"):
                    mean, half_width = sequence.band(part, metric)
                    row[f"{part} {metric}"] = mean[position]
                    row[f"{part} {metric} 95 % half width"] = half_width[position]
            rows.append(row)
        write_whole(folder / "sequence_importance.csv", _csv(rows))
        for metric in ("r2", "mse"):
            plot_sequence_importance(folder / f"sequence_importance_{metric}.png", sequence, metric)
    if variable is not None:
        rows = [
            {"lag": lag, **dict(zip(variable.input_names, map(float, values), strict=True))}
            for lag, values in enumerate(variable.variance)
        ]
        write_whole(folder / "variable_importance.csv", _csv(rows))
        plot_variable_importance(folder / "variable_importance.png", variable)


def write_comparison(run: Run, results: Sequence[Compared]) -> str:
    """Write ``comparison.md``, ``.csv`` and ``.png``, and every prediction; return the Markdown."""
    assert run.recipe.compare is not None
    by, windows = run.recipe.compare.folds.by, results[0].windows
    sites = sorted({str(site) for site in windows.site})
    rows = []
    for result in results:
        row: Row = {"model": result.name}
        for site in sites:
            found = result.scores(site)
            row |= {f"{site} R2": found.r2, f"{site} RMSE": found.rmse}
        if len(sites) == 1:
            row |= {f"R2 {name}": found.r2 for name, found in result.fold_scores().items()}
        rows.append(row)
    chosen = [
        {"model": result.name, "without": name, **_short(settings)}
        for result in results
        for name, settings in result.chosen.items()
    ]
    text = (
        f"# Comparison on the same {len(windows)} days\n\n"
        f"Each fold holds out one {_unit(by)} and every model predicts it without having seen it; R2 and RMSE "
        f"[{windows.target_units}] are of all held-out days together. Where a model has a grid, each fold chose within "
        f"its own training windows.\n\n{_markdown(rows)}\n## What each fold chose\n\n{_markdown(chosen)}"
    )
    _write(run.folder, "comparison", rows, text)
    plot_skill(
        run.folder / "comparison.png",
        {site: {result.name: result.scores(site).r2 for result in results} for site in sites},
    )
    order = np.lexsort((windows.date, windows.site))
    predictions = [
        {
            "site": str(windows.site[i]),
            "date": str(windows.date[i]),
            "fold": results[0].fold[i],
            "observed": float(windows.target[i]),
            **{result.name: float(result.predicted[i]) for result in results},
        }
        for i in order
    ]
    write_whole(run.folder / "comparison_predictions.csv", _csv(predictions))
    return text


def _summary(fits: Sequence[tuple[Scores, Scores]]) -> str:
    """Mean scores of several fits, as DLFM reports them."""
    if len(fits) < 2:
        return ""
    parts = []
    for label, part in (("training", 0), ("evaluation", 1)):
        r2, mse = (np.array([getattr(pair[part], what) for pair in fits]) for what in ("r2", "mse"))
        parts.append(f"{label} R2 {r2.mean():.3f} ± {r2.std(ddof=1):.3f}, MSE {mse.mean():.4g}")
    return f"\nThe {len(fits)} fits, mean and standard deviation: {'; '.join(parts)}.\n"


def _data_sentence(run: Run, judged: Judged) -> str:
    training, evaluation = judged.training, judged.evaluation
    towers = ", ".join(sorted({str(site) for site in training.site}))
    inputs = ", ".join(map("{} [{}]".format, training.input_names, training.input_units))
    return (
        f"Towers: {towers}. Inputs: {inputs}. {len(training)} training windows "
        f"({training.date.min()} to {training.date.max()}), {len(evaluation)} evaluation windows "
        f"({evaluation.date.min()} to {evaluation.date.max()}), divided by {_unit(run.recipe.split.by, plural=True)}."
    )


def _unit(by: str, plural: bool = False) -> str:
    before, noun, after = {
        "season": ("season ", "year", ""),
        "calendar": ("calendar ", "year", ""),
        "july": ("", "year", " from July"),
    }.get(by, ("", by, ""))
    return f"{before}{noun}{'s' if plural else ''}{after}"


def _short(settings: Settings) -> Row:
    """Settings on one line: what differs from the defaults."""
    plain, defaults = _flat(settings), _flat(Settings(model=settings.model))
    shown = {key: value for key, value in plain.items() if value != defaults.get(key) and key != "model"}
    return {"settings": ", ".join(f"{key} {value}" for key, value in shown.items())}


def _varied(settings: Settings, all_settings: Sequence[Settings]) -> Row:
    """What tells this candidate from the others."""
    flat = [_flat(other) for other in all_settings]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    own = _flat(settings)
    return {
        key: own.get(key) for key in keys if len({repr(one.get(key)) for one in flat}) > 1 or key == "model"
    }


def _flat(settings: Settings) -> Row:
    plain = msgspec.to_builtins(settings)
    return {
        "model": plain["model"],
        "sequence_length": plain["sequence_length"],
        **{f"sizes.{key}": value for key, value in plain["sizes"].items()},
        **{f"fit.{key}": value for key, value in plain["fit"].items()},
    }


def _write(folder: Path, name: str, rows: Sequence[Row], text: str) -> None:
    write_whole(folder / f"{name}.csv", _csv(rows))
    write_whole(folder / f"{name}.md", text)


def _csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v := row.get(key, ""), float) else v for key in columns])
    return text.getvalue()


def _markdown(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [
        [f"{v:.3f}" if isinstance(v := row.get(key, ""), float) else str(v) for key in columns]
        for row in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
