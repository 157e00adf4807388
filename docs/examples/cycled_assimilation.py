"""A forecast of Lorenz-63 that is corrected as it goes: Lorenz63, observations and FourDVarNet coupled in a cycle."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmi_components import FourDVarNet, Lorenz63, couple
from bmi_components.fourdvarnet.lorenz import SYSTEMS, trajectory

Array = NDArray[np.float64]
COMPONENTS = ("x", "y", "z")
STEP = 0.01
EVERY = 8  # steps from one observation to the next
NOISE = 2.0**0.5  # standard deviation of the observations' error


def truth_and_observations(steps: int, seed: int = 7) -> tuple[Array, Array]:
    """Return the true states and what is seen of them, each ``[step, component]``; NaN where nothing is seen."""
    truth = trajectory(SYSTEMS["lorenz63"], steps, spin_up=150.0)
    seen = truth + NOISE * np.random.default_rng(seed).standard_normal(truth.shape)
    seen[np.arange(steps) % EVERY != 0] = np.nan
    return truth, seen


def forecast(folder: Path, start: tuple[float, float, float] = (1.0, 1.0, 20.0)) -> Lorenz63:
    """Return a forecast component that starts from a wrong state."""
    path = folder / "forecast.yaml"
    path.write_text(f"state: [[{', '.join(map(str, start))}]]\ntime_step: {STEP}\n")
    component = Lorenz63()
    component.initialize(str(path))
    return component


def free_run(folder: Path, steps: int) -> Array:
    """Return the states of a forecast that sees nothing, ``[step, component]``."""
    run = couple({"forecast": forecast(folder)})
    found = run.run(steps * STEP, [f"forecast:{c}" for c in COMPONENTS], progress=False)
    return np.stack([found[f"forecast.{c}"].values[:, 0] for c in COMPONENTS], axis=1)


def nudged(folder: Path, seen: Array, gain: float) -> Array:
    """Return the states of a forecast that is drawn towards each observation by a share of the difference."""
    component = forecast(folder)
    states = np.empty(seen.shape)
    for step, observation in enumerate(seen):
        component.update()
        for number, name in enumerate(COMPONENTS):
            state = component.get_value_ptr(f"model_state__{name}_component")
            states[step, number] = state[0]
            corrected = state + gain * (observation[number] - state)
            component.set_value(f"model_state__analysis_of_{name}_component", corrected)
    return states


def cycled(folder: Path, seen: Array, model: Path, settings: str = "") -> tuple[Array, Array, Array]:
    """Return forecasts, analyses and lagged analyses, ``[step, component]``: a step starts from the last analysis."""
    path = folder / "assimilation.yaml"
    path.write_text(f"model: {model}\nbackground: true\n{settings}")
    assimilation = FourDVarNet()
    assimilation.initialize(str(path))
    run = couple(
        {"forecast": forecast(folder), "assimilation": assimilation},
        # the analysis of a step is where the forecast of the next one starts
        [f"forecast:{c} -> assimilation:{c}" for c in COMPONENTS]
        + [f"assimilation:analysed_{c} -> forecast:analysed_{c}" for c in COMPONENTS],
        {f"assimilation:observed_{c}": seen[:, [number]] for number, c in enumerate(COMPONENTS)},
    )
    kinds = ("forecast:{}", "assimilation:analysed_{}", "assimilation:lagged_{}")
    wanted = [kind.format(c) for kind in kinds for c in COMPONENTS]
    found = run.run(len(seen) * STEP, wanted, progress=False)

    forecasts, analyses, lagged = (
        np.stack([found[kind.format(c).replace(":", ".")].values[:, 0] for c in COMPONENTS], axis=1)
        for kind in kinds
    )
    return forecasts, analyses, lagged


def four_d_var(seen: Array, times: NDArray[np.int64], window: int = 200) -> Array:
    """Return the states at some steps by strong-constraint 4DVar with the true equations, ``[time, component]``.

    Each is the end of the trajectory that fits the ``window`` steps up to it best. Needs the extra "assimilation".
    """
    from bmi_components.fourdvarnet.baselines import strong_constraint_4dvar

    system = SYSTEMS["lorenz63"]
    windows = np.stack([seen[end + 1 - window : end + 1] for end in times])
    climate = trajectory(system, 5_000, spin_up=20.0)
    return strong_constraint_4dvar(system, windows, climate)[:, -1]


def error(states: Array, truth: Array, after: int = 200) -> float:
    """Return the root mean square difference over all components, without the first steps."""
    return float(np.sqrt(np.mean((states[after:] - truth[after:]) ** 2)))
