"""Published names of a dynamical system's state: as it is, as observed, as analysed."""

from __future__ import annotations

from bmi_components.variables import Variable

__all__ = ["analysed", "observed", "state"]


def state(component: str, units: str = "1") -> Variable:
    """Return the variable of one component of the state."""
    return Variable(
        f"model_state__{component}_component", units, component, f"Component {component} of the state"
    )


def observed(component: str, units: str = "1") -> Variable:
    """Return the variable of an observed component; NaN where nothing was observed."""
    return Variable(
        f"model_state__observation_of_{component}_component",
        units,
        f"observed_{component}",
        f"Observation of the component {component}; NaN where there is none",
        nan_is_data=True,
    )


def analysed(component: str, units: str = "1") -> Variable:
    """Return the variable of an analysed component: what assimilation gives, and what a forecast may start from."""
    return Variable(
        f"model_state__analysis_of_{component}_component",
        units,
        f"analysed_{component}",
        f"Analysis of the component {component}; NaN where there is none",
        nan_is_data=True,
    )
