"""The configuration of a neuralhydrology run (``config.yml``), read key by key."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from bmi_components.errors import BundleError

__all__ = ["SECONDS", "RunSettings"]

SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "t": 60.0, "s": 1.0, "w": 604800.0}
"""Length of pandas' time units, in lower case."""

NOT_STEPPED = {
    "transformer": "it looks at a whole window at once",
    "mamba": "its state is kept inside a package that runs whole windows",
    "xlstm": "its state is kept inside a package that runs whole windows",
    "x_lstm": "its state is kept inside a package that runs whole windows",
    "odelstm": "it draws at random which steps it aggregates",
    "handoff_forecast_lstm": "each of its steps needs a whole forecast",
    "multihead_forecast_lstm": "each of its steps needs a whole forecast",
    "sequential_forecast_lstm": "each of its steps needs a whole forecast",
    "stacked_forecast_lstm": "each of its steps needs a whole forecast",
}
"""Why a model cannot be run one step at a time."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The configuration of a run."""

    values: Mapping[str, Any]
    path: Path

    def refuse(self, message: str) -> NoReturn:
        """Stop with what is wrong in this file."""
        raise BundleError(f"{self.path}: {message}")

    def get(self, *spellings: str) -> Any:
        """Return the value under the first of the keys that is there; None without it."""
        return next((self.values[key] for key in spellings if self.values.get(key) is not None), None)

    def names(self, *spellings: str) -> list[str]:
        """Return a list of names; a single name counts as one, groups of names are joined."""
        return self.names_in(spellings[0], self.get(*spellings))

    def names_in(self, key: str, value: Any) -> list[str]:
        """Return the list of names that a value of ``key`` is."""
        entries = [] if value is None else value if isinstance(value, list) else [value]
        flat = [n for entry in entries for n in (entry if isinstance(entry, list) else [entry])]
        if not all(isinstance(name, str) for name in flat):
            self.refuse(f"{key!r} must be a list of names, not {value!r}")
        return flat

    def integer(self, key: str, value: Any = None) -> int:
        """Return a whole number above zero: ``value`` if given, what the key holds otherwise."""
        value = self.values.get(key) if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.refuse(f"{key!r} must be a whole number above 0, not {value!r}")
        return value

    def number(self, key: str) -> float:
        """Return a number."""
        value = self.values.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            self.refuse(f"{key!r} must be a number, not {value!r}")
        return float(value)

    def at_frequency(self, key: str, frequency: str | None) -> Any:
        """Return a value that may be given for each frequency."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            return value
        if frequency is None and len(value) == 1:
            return next(iter(value.values()))
        if frequency not in value:
            self.refuse(f"{key!r} has no entry for the frequency {frequency!r}")
        return value[frequency]

    @property
    def model(self) -> str:
        """The architecture, in lower case."""
        value = self.values.get("model")
        if not isinstance(value, str):
            self.refuse(f"'model' must be the name of an architecture, not {value!r}")
        return value.lower()

    @property
    def head(self) -> str:
        """The head, in lower case."""
        value = self.values.get("head")
        if not isinstance(value, str):
            self.refuse(f"'head' must be the name of a head, not {value!r}")
        return value.lower()

    @property
    def dataset(self) -> str:
        """The data set, in lower case."""
        return str(self.values.get("dataset") or "").lower()

    def frequencies(self) -> dict[str, float]:
        """Return the frequencies as the configuration spells them with their steps' length, s, longest first."""
        steps = {}
        for frequency in self.names("use_frequencies"):
            matched = re.fullmatch(r"(\d*)([A-Za-z]+)", frequency)
            length = SECONDS.get(matched[2].lower()) if matched else None
            if matched is None or length is None or matched[1] == "0":
                self.refuse(f"use_frequencies names {frequency!r}; a frequency like 1D or 1h is needed")
            steps[frequency] = float(matched[1] or 1) * length
        return dict(sorted(steps.items(), key=lambda item: -item[1]))

    def embedding(self, which: str) -> str | None:
        """Return the activation inside the embedding "statics" or "dynamics"; None: there is no embedding."""
        described = self.values.get(f"{which}_embedding")
        if not described:
            return None
        if isinstance(described, Mapping):
            kind, activation = described.get("type", "fc"), described.get("activation", "tanh")
        else:  # until 0.9.11: a switch, and keys of its own
            kind, activation = "fc", self.values.get("embedding_activation", "tanh")
        if str(kind).lower() != "fc":
            self.refuse(f"{which}_embedding is of type {kind!r}; fully connected ones ('fc') are known")
        return str(activation).lower()

    def refuse_what_cannot_be_stepped(self) -> None:
        """Say by name what this run has that no step-by-step model can do."""
        if self.model in NOT_STEPPED:
            self.refuse(f"a {self.model} cannot be run step by step: {NOT_STEPPED[self.model]}")
        for key, reason in {
            "forecast_inputs": "each step would need a whole forecast",
            "hindcast_inputs": "each step would need a whole forecast",
            "nan_handling_method": "an input that may be missing is not known here",
            "timestep_counter": "a step would have to know its place in the window",
        }.items():
            if self.get(key):
                self.refuse(f"a run with {key!r} cannot be run step by step: {reason}")
        frequencies = self.names("use_frequencies")
        if len(frequencies) > 2:
            self.refuse(
                f"use_frequencies names {', '.join(frequencies)}; at most two frequencies can be stepped"
            )
