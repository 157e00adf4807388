"""neuralhydrology's architectures as our networks: which tensor of a checkpoint becomes which weight.

Layouts of neuralhydrology 0.9 to 1.13, read off its state_dicts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import BundleError
from bmi_components.importers.checkpoint import Weights
from bmi_components.importers.neuralhydrology_settings import RunSettings
from bmi_components.importers.neuralhydrology_units import plain_name

__all__ = ["Architecture", "Tensors", "architecture"]

TORCH_LAYER = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
}
"""Our names of a recurrent layer's weights, and PyTorch's."""

HEAD_PARTS = {"gmm": 3, "cmal": 4, "umal": 2}
"""Numbers that describe one component of a distribution."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the configuration and the checkpoint say about a network.

    Attributes
    ----------
    hyperparameters
        For `bmi_components.lstm.networks`.
    weights
        By our names.
    inputs
        Forcings in order, each with the scaler's names of it: copies have statistics of their own.
    statistics
        Name in the scaler for each key of the normalisation.
    """

    hyperparameters: dict[str, Any]
    weights: Weights
    inputs: dict[str, list[str]]
    statistics: dict[str, str]


class Tensors:
    """The tensors of a checkpoint, taken out one after the other, so that none is left over."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
        self._left = dict(arrays)
        self.path = path

    def take(self, name: str) -> NDArray[Any]:
        """Take a tensor out."""
        if name not in self._left:
            raise BundleError(f"{self.path}: the checkpoint lacks {name}")
        return self._left.pop(name)

    def drop(self, prefix: str) -> None:
        """Forget tensors that are stored twice."""
        self._left = {name: array for name, array in self._left.items() if not name.startswith(prefix)}

    def layers(self, prefix: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Take dense layers ``prefix.<number>.weight`` and ``.bias`` in the order of their numbers."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.weight")
        numbers = sorted(int(m[1]) for name in self._left if (m := pattern.fullmatch(name)))
        return [(self.take(f"{prefix}.{n}.weight"), self.take(f"{prefix}.{n}.bias")) for n in numbers]

    def has(self, prefix: str) -> bool:
        """Whether a tensor's name starts so."""
        return any(name.startswith(prefix) for name in self._left)

    def finish(self, model: str) -> None:
        """Complain about tensors that nothing explains."""
        if self._left:
            raise BundleError(
                f"{self.path}: the checkpoint holds {', '.join(sorted(self._left)[:4])}, which a {model} with this "
                "configuration has not"
            )


def architecture(settings: RunSettings, tensors: Tensors, target: str, attributes: int) -> Architecture:
    """Find out which of our networks a run is, and take its weights.

    Parameters
    ----------
    settings
        The run's configuration.
    tensors
        Its checkpoint.
    target
        The target variable that is wanted.
    attributes
        Number of attributes.

    Raises
    ------
    BundleError
        If the architecture is not known, or the tensors are not those that the configuration explains.
    """
    reader = READERS.get(settings.model)
    if reader is None:
        settings.refuse(f"'model' is {settings.model!r}; known are {', '.join(sorted(READERS))}")
    frequencies = settings.frequencies()
    if (len(frequencies) > 1) != (settings.model == "mtslstm"):
        settings.refuse(
            f"a {settings.model} with the frequencies {', '.join(frequencies) or 'of the data'} is not possible"
        )
    made = reader(_Reading(settings, tensors, target, attributes))
    tensors.finish(settings.model)
    return made


class _Reading:
    """A run that is being read."""

    def __init__(self, settings: RunSettings, tensors: Tensors, target: str, attributes: int) -> None:
        self.settings, self.tensors, self.attributes = settings, tensors, attributes
        targets = settings.names("target_variables", "target_variable")
        self.target, self.targets, self.position = target, targets, targets.index(target)
        self.weights: Weights = {}
        self.inputs: dict[str, list[str]] = {}
        self.statistics: dict[str, str] = {}

    def made(self, network: str, **hyperparameters: Any) -> Architecture:
        """Put together what was read."""
        if "sequence_length" not in hyperparameters:
            hyperparameters["sequence_length"] = self.window(None)
        return Architecture(
            {"network": network, **hyperparameters}, self.weights, self.inputs, self.statistics
        )

    def window(self, frequency: str | None) -> int:
        """Return the steps that are run for one value."""
        return self.settings.integer("seq_length", self.settings.at_frequency("seq_length", frequency))

    def input_names(self, names: list[str], prefix: str = "") -> list[str]:
        """Note inputs of the network; return them without a copy's number, each once.

        Raises
        ------
        BundleError
            If an input is a lagged one, or is there twice with the same statistics.
        """
        settings = self.settings
        if not names:
            settings.refuse("dynamic_inputs names no input")
        plain = []
        for name in names:
            base = plain_name(name)
            if re.search(r"_shift\d+$", base):
                settings.refuse(f"the lagged input {name!r} cannot be fed step by step")
            if base in plain:
                settings.refuse(f"{base!r} enters the network twice")
            plain.append(base)
            self.inputs.setdefault(base, [])
            if name not in self.inputs[base]:
                self.inputs[base].append(name)
            if self.statistics.setdefault(prefix + base, name) != name:
                settings.refuse(f"{base!r} enters two networks in copies of different statistics")
        return plain

    def embedding(self, which: str, prefix: str, ours: str) -> tuple[str, ...]:
        """Take the layers of an embedding; return their activations, none if there is no embedding."""
        activation = self.settings.embedding(which)
        if activation is None:
            return ()
        name = f"{prefix}{which}_embedding"
        if which == "dynamics" and self.tensors.has(f"{prefix}dynamics_embeddings."):  # since 1.12
            name = f"{prefix}dynamics_embeddings.0"
        layers = self.tensors.layers(f"{name}.net")
        if not layers:
            raise BundleError(f"{self.tensors.path}: the checkpoint lacks {name}.net.0.weight")
        for number, (weights, bias) in enumerate(layers):
            self.weights |= {f"{ours}.{number}.weights": weights, f"{ours}.{number}.bias": bias}
        return (activation,) * (len(layers) - 1) + ("linear",)

    def embeddings(self, prefix: str = "embedding_net.", ours: str = "") -> dict[str, tuple[str, ...]]:
        """Take both embeddings."""
        return {
            "front": self.embedding("dynamics", prefix, f"{ours}front"),
            "attribute_layers": self.embedding("statics", prefix, f"{ours}attribute_layers"),
        }

    def recurrent(self, names: Mapping[str, str], prefix: str, ours: str = "") -> None:
        """Take a recurrent layer."""
        for mine, theirs in names.items():
            self.weights[f"{ours}recurrent.{mine}"] = self.tensors.take(f"{prefix}.{theirs}")

    def head(self, prefix: str = "head", ours: str = "") -> dict[str, Any]:
        """Take a head's layers, of several targets only the wanted one's part."""
        kind = self.settings.head
        if kind == "regression":
            layers = self.tensors.layers(f"{prefix}.net")
            activation = str(self.settings.get("output_activation") or "linear").lower()
            if activation not in ("relu", "softplus"):
                activation = "linear"  # neuralhydrology takes all others for it, too
            described = {"head": activation, "readout": ("linear",)}
        elif kind in HEAD_PARTS:
            layers = [
                (self.tensors.take(f"{prefix}.{fc}.weight"), self.tensors.take(f"{prefix}.{fc}.bias"))
                for fc in ("fc1", "fc2")
            ]
            described = {"head": kind, "readout": ("relu", "linear")}
        else:
            self.settings.refuse(f"the head {kind!r} is not known; known are regression, gmm, cmal and umal")
        if len(layers) != len(described["readout"]):
            raise BundleError(f"{self.tensors.path}: the checkpoint's {prefix} has {len(layers)} layers")
        weights, bias = layers[-1]
        if weights.ndim != 2 or bias.shape != weights.shape[:1]:
            raise BundleError(
                f"{self.tensors.path}: the checkpoint's {prefix} has shapes {weights.shape} and {bias.shape}"
            )
        rows = self._rows_of_target(kind, bias.size)
        layers[-1] = (weights[rows], bias[rows])
        for number, (weights, bias) in enumerate(layers):
            self.weights |= {f"{ours}readout.{number}.weights": weights, f"{ours}readout.{number}.bias": bias}
        return described

    def _rows_of_target(self, kind: str, size: int) -> NDArray[np.int64]:
        """Return the rows of the wanted target: each part of a head holds all targets, each with its components."""
        parts = HEAD_PARTS.get(kind, 1)
        components = size // (parts * len(self.targets))
        mixture = kind in ("gmm", "cmal")
        if size != parts * len(self.targets) * components or not (components == 1 or mixture):
            raise BundleError(
                f"{self.tensors.path}: the head has {size} outputs, which {len(self.targets)} targets do not share"
            )
        rows = np.arange(size).reshape(parts, len(self.targets), components)
        return rows[:, self.position].ravel()

    def taus(self) -> dict[str, Any]:
        """Return the asymmetries of a UMAL head."""
        if self.settings.head != "umal":
            return {}
        settings = self.settings
        return {
            "taus": {
                "number": settings.integer("n_taus"),
                "lowest": settings.number("tau_down"),
                "highest": settings.number("tau_up"),
            }
        }

    def branch(self, cell: str = "lstm", **parts: Any) -> dict[str, Any]:
        """Describe the one network of a run with a single frequency."""
        inputs = self.input_names(self._dynamic_inputs())
        return {"inputs": inputs, "cell": cell, **self.embeddings(), **parts}

    def _dynamic_inputs(self) -> list[str]:
        value = self.settings.at_frequency("dynamic_inputs", None)
        return self.settings.names_in("dynamic_inputs", value)


def _gated(cell: str, names: Mapping[str, str], prefix: str) -> Callable[[_Reading], Architecture]:
    """Return the reader of a LSTM or GRU that is stored as a recurrent layer."""

    def read(run: _Reading) -> Architecture:
        run.recurrent(names, prefix)
        return run.made("recurrent", branch=run.branch(cell, **run.head()), **run.taus())

    return read


def _embedded_lstm(run: _Reading) -> Architecture:
    """Read an embcudalstm: a cudalstm whose tensors are all there a second time."""
    run.tensors.drop("cudalstm.")
    return _gated("lstm", TORCH_LAYER, "lstm")(run)


def _entity_aware_lstm(run: _Reading) -> Architecture:
    """Read an EA-LSTM: an LSTM whose input gate sees only the attributes, and whose other gates do not see them."""
    tensors = run.tensors
    gate_weights, gate_bias = tensors.take("input_gate.weight"), tensors.take("input_gate.bias")
    w_ih, w_hh = tensors.take("dynamic_gates.weight_ih").T, tensors.take("dynamic_gates.weight_hh").T
    bias = tensors.take("dynamic_gates.bias")
    hidden, statics = gate_weights.shape
    if w_hh.shape != (3 * hidden, hidden) or len(w_ih) != 3 * hidden or bias.shape != (3 * hidden,):
        raise BundleError(f"{tensors.path}: the gates of the checkpoint differ in size")

    def ordered(gates: NDArray[Any], first: NDArray[Any]) -> NDArray[Any]:
        forget, output, candidate = np.split(gates, 3)
        return np.concatenate((first, forget, candidate, output))

    dynamic = w_ih.shape[1]
    of_forcing = ordered(w_ih, np.zeros((hidden, dynamic), w_ih.dtype))
    of_statics = np.concatenate((gate_weights, np.zeros((3 * hidden, statics), w_ih.dtype)))
    run.weights |= {
        "recurrent.w_ih": np.concatenate((of_forcing, of_statics), axis=1),
        "recurrent.w_hh": ordered(w_hh, np.zeros((hidden, hidden), w_hh.dtype)),
        "recurrent.b_ih": ordered(bias, gate_bias),
        "recurrent.b_hh": np.zeros(4 * hidden, bias.dtype),
    }
    return run.made("recurrent", branch=run.branch("lstm", **run.head()), **run.taus())


def _autoregressive_lstm(run: _Reading) -> Architecture:
    """Read an arlstm, which is fed its own runoff where the observed one is not known."""
    settings = run.settings
    fed_back = settings.names("autoregressive_inputs")
    matched = re.fullmatch(r"(.*)_shift([1-9]\d*)", fed_back[0]) if len(fed_back) == 1 else None
    if matched is None or [matched[1]] != run.targets:
        settings.refuse(
            f"autoregressive_inputs is {fed_back}; the one target, lagged, is needed: {run.target}_shift1"
        )
    if settings.head != "regression":
        settings.refuse(f"an arlstm with the head {settings.head!r} is not possible")
    run.recurrent(TORCH_LAYER, "cell")
    run.statistics[fed_back[0]] = fed_back[0]
    return run.made("recurrent", branch=run.branch("lstm", **run.head()), feedback=int(matched[2]))


def _mass_conserving_lstm(run: _Reading) -> Architecture:
    """Read a mclstm; its gates have learnt to see the water of a whole batch."""
    settings = run.settings
    mass = settings.names("mass_inputs")
    if len(mass) != 1 or len(run.targets) != 1:
        settings.refuse(f"a mclstm has one mass input and one target, not {mass} and {run.targets}")
    inputs = run.input_names([*mass, *settings.names("dynamic_inputs")])
    for gate in ("input_gate", "redistribution", "output_gate"):
        run.weights[f"{gate}.weights"] = run.tensors.take(f"mclstm.{gate}.fc.weight")
        run.weights[f"{gate}.bias"] = run.tensors.take(f"mclstm.{gate}.fc.bias")
    layers = run.embedding("statics", "embedding_net.", "attribute_layers")
    company = settings.integer("batch_size") if settings.get("batch_size") else 1
    return run.made("mass_conserving", inputs=inputs, attribute_layers=layers, company=company)


def _hybrid(run: _Reading) -> Architecture:
    settings = run.settings
    conceptual = str(settings.get("conceptual_model") or "").lower()
    if conceptual != "shm":
        settings.refuse(f"the conceptual model {conceptual!r} is not known; SHM is")
    if len(run.targets) != 1:
        settings.refuse(f"a hybrid_model has one target, not {', '.join(run.targets)}")
    run.recurrent(TORCH_LAYER, "lstm")
    run.weights["readout.0.weights"] = run.tensors.take("linear.weight")
    run.weights["readout.0.bias"] = run.tensors.take("linear.bias")
    branch = run.branch("lstm")
    names = settings.names("dynamic_conceptual_inputs")
    if len(names) != 4:
        settings.refuse(
            f"dynamic_conceptual_inputs is {names}; precipitation, potential evapotranspiration and two temperatures "
            "are needed"
        )
    stores = run.input_names(names, prefix="conceptual/")
    warm_up = settings.get("warmup_period") or 0
    if not isinstance(warm_up, int) or isinstance(warm_up, bool) or warm_up < 0:
        settings.refuse(f"'warmup_period' must be a whole number of steps, not {warm_up!r}")
    return run.made("hybrid", branch=branch, conceptual_inputs=stores, warm_up=warm_up)


def _multi_timescale_lstm(run: _Reading) -> Architecture:
    settings, tensors = run.settings, run.tensors
    (slow, slow_step), (fast, fast_step) = settings.frequencies().items()
    ratio = slow_step / fast_step
    if ratio < 2 or ratio != int(ratio):
        settings.refuse(f"the frequency {slow!r} is no multiple of {fast!r}")
    if settings.head == "umal":
        settings.refuse("a mtslstm with a UMAL head is not known here")
    shared = bool(settings.get("shared_mtslstm"))
    branches = {}
    # the fast network's inputs come first
    for position, (name, frequency) in enumerate((("fast", fast), ("slow", slow))):
        run.recurrent(TORCH_LAYER, f"lstms.{frequency}", f"{name}.")
        if shared:
            # each network knows which it is by a flag that never changes: it is part of the bias
            flags = run.weights[f"{name}.recurrent.w_ih"][:, -2:].astype(np.float64)
            run.weights[f"{name}.recurrent.w_ih"] = run.weights[f"{name}.recurrent.w_ih"][:, :-2]
            bias = run.weights[f"{name}.recurrent.b_ih"]
            run.weights[f"{name}.recurrent.b_ih"] = (bias + flags[:, 1 - position]).astype(bias.dtype)
        inputs = settings.names_in("dynamic_inputs", settings.at_frequency("dynamic_inputs", frequency))
        branches[name] = {
            "inputs": run.input_names(inputs),
            **run.embeddings(f"embedding_net.{frequency}.", f"{name}."),
            **run.head(f"heads.{frequency}", f"{name}."),
        }
    modes = {"h": "linear", "c": "linear", **(settings.get("transfer_mtslstm_states") or {})}
    transfer = {}
    for state in ("h", "c"):
        mode = "none" if modes[state] is None else str(modes[state]).lower()
        if mode not in ("linear", "identity", "none"):
            settings.refuse(f"transfer_mtslstm_states has {mode!r} for {state}")
        transfer[state] = mode
        if mode == "linear":
            for mine, theirs in (("weights", "weight"), ("bias", "bias")):
                run.weights[f"transfer.{state}.0.{mine}"] = tensors.take(
                    f"transfer_fcs.{state}_{slow}.{theirs}"
                )
    fast_window, slow_window = run.window(fast), run.window(slow)
    if fast_window % int(ratio) or fast_window // int(ratio) > slow_window:
        settings.refuse(
            f"seq_length of {fast} is {fast_window}; whole steps of {slow} are needed, at most {slow_window} of them"
        )
    return run.made(
        "multi_timescale",
        **branches,
        transfer=transfer,
        ratio=int(ratio),
        slow_window=slow_window,
        sequence_length=fast_window,
    )


READERS: Mapping[str, Callable[[_Reading], Architecture]] = {
    "cudalstm": _gated("lstm", TORCH_LAYER, "lstm"),
    "embcudalstm": _embedded_lstm,
    "customlstm": _gated("lstm", {name: name for name in TORCH_LAYER}, "cell"),
    "lstm": _gated("lstm", {name: name for name in TORCH_LAYER}, "cell"),
    "gru": _gated("gru", TORCH_LAYER, "gru"),
    "ealstm": _entity_aware_lstm,
    "arlstm": _autoregressive_lstm,
    "mclstm": _mass_conserving_lstm,
    "hybrid_model": _hybrid,
    "mtslstm": _multi_timescale_lstm,
}
"""How each architecture is read, by its name in the configuration."""
