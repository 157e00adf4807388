"""Published names of a dynamical system's state: as it is, as observed, as analysed."""

from __future__ import annotations

from dataclasses import replace

from bmi_components.variables import Variable

__all__ = [
    "COST",
    "NUMBER_OF_OBSERVATIONS",
    "WINDOW",
    "analysed",
    "innovation",
    "lagged",
    "observed",
    "spread",
    "state",
    "trajectory",
]

WINDOW = "window"
"""Grid of a window's trajectory, ``[time, site]``, the latest time last."""

COST = Variable(
    "model_state__variational_cost",
    "1",
    "cost",
    "Variational cost of the analysis; NaN before there is one",
    nan_is_data=True,
)
NUMBER_OF_OBSERVATIONS = Variable(
    "model_state__number_of_observations",
    "1",
    "number_of_observations",
    "Number of observed values in the window",
)


def state(component: str, units: str = "1") -> Variable:
    """Return the variable of one component of the state."""
    return Variable(
        f"model_state__{component}_component", units, component, f"Component {component} of the state"
    )


def observed(component: str, units: str = "1") -> Variable:
    """Return the variable of an observed component; NaN where nothing was observed."""
    return _unknown_at_times(
        f"model_state__observation_of_{component}_component",
        units,
        f"observed_{component}",
        f"Observation of the component {component}",
    )


def analysed(component: str, units: str = "1") -> Variable:
    """Return the variable of an analysed component: what assimilation gives, and what a forecast may start from."""
    return _unknown_at_times(
        f"model_state__analysis_of_{component}_component",
        units,
        f"analysed_{component}",
        f"Analysis of the component {component}",
    )


def lagged(component: str, units: str = "1") -> Variable:
    """Return the variable of the analysis some steps ago, which has seen observations after its time as well."""
    return _unknown_at_times(
        f"model_state__lagged_analysis_of_{component}_component",
        units,
        f"lagged_{component}",
        f"Analysis of the component {component} at the configured lag before the present",
    )


def innovation(component: str, units: str = "1") -> Variable:
    """Return the variable of what an observation says beyond what was expected."""
    return _unknown_at_times(
        f"model_state__innovation_of_{component}_component",
        units,
        f"innovation_of_{component}",
        f"Latest observation of the component {component} less the forecast, or else the analysis of the step before",
    )


def spread(component: str, units: str = "1") -> Variable:
    """Return the variable of an analysis' uncertainty."""
    return _unknown_at_times(
        f"model_state__standard_deviation_of_analysis_of_{component}_component",
        units,
        f"spread_of_{component}",
        f"Standard deviation of the analysis of the component {component} over perturbed observations",
    )


def trajectory(component: str, units: str = "1") -> Variable:
    """Return the variable of the analysis over the whole window."""
    return replace(
        _unknown_at_times(
            f"model_state__analysis_of_{component}_component_over_window",
            units,
            f"trajectory_of_{component}",
            f"Analysis of the component {component} over the window, [time, site]",
        ),
        grid=WINDOW,
    )


def _unknown_at_times(name: str, units: str, symbol: str, meaning: str) -> Variable:
    return Variable(name, units, symbol, f"{meaning}; NaN where there is none", nan_is_data=True)
