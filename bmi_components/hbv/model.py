"""δHBV: a network that reads weather and attributes, and the HBV physics whose parameters it gives, as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.hbv.networks import LstmLayer, LstmMlpNetwork, LstmNetwork, TimescaleBranch
from bmi_components.hbv.parameters import UNIT_ROUTING, Parameter
from bmi_components.hbv.physics import FORCINGS, VARIANTS, Physics, physics_variant
from bmi_components.hbv.routing import route, unit_hydrograph
from bmi_components.hbv.series import Series, initial_stores, simulate_physics
from bmi_components.lstm.cells import LstmState
from bmi_components.trained_model import NamedUnits, TrainedModel

__all__ = ["Catchments", "DeltaHBV", "HBVHyperparameters", "HBVState"]


class HBVHyperparameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which HBV, and the sizes of its network.

    Attributes
    ----------
    physics
        "1.0", "1.1p", "2.0", "2.0-hourly" or "2.1-hourly".
    components
        Parallel components per catchment, whose outputs are averaged.
    dynamic_parameters
        Parameters that vary with time; those of the published model if left out.
    network
        "lstm": Linear-ReLU-LSTM-Linear gives every parameter (1.x); "lstm_mlp": the LSTM gives the dynamic and an MLP
        of the attributes the static ones (2.x); "timescale_branch": the same as one branch of the multi-timescale
        network has it.
    hidden, dropout
        Of the LSTM; dropout of its weights, in training.
    mlp_hidden, mlp_layers, mlp_dropout
        Of the MLP.
    static_parameters_from
        Where "lstm" reads the static parameters: at the "last_step" of the window that it is given, as the published
        1.x models do, or at the "warm_up_end", which a forecast can know.
    routing
        Whether runoff is routed by a unit hydrograph.
    log_transformed
        Forcings of which the network sees log10(sqrt(x) + 0.1).
    elevation_attribute, area_attribute
        Attributes that the equations of 2.x use: m and km2.
    network_attributes
        Attributes that the network reads, if not all.
    projected
        Whether a "timescale_branch" has a linear layer before its LSTM.
    """

    physics: str = "1.1p"
    components: int = 16
    dynamic_parameters: tuple[str, ...] | None = None
    network: Literal["lstm", "lstm_mlp", "timescale_branch"] = "lstm"
    hidden: int = 256
    dropout: float = 0.5
    mlp_hidden: int = 4096
    mlp_layers: int = 6
    mlp_dropout: float = 0.5
    static_parameters_from: Literal["last_step", "warm_up_end"] = "warm_up_end"
    routing: bool = True
    log_transformed: tuple[str, ...] = ()
    elevation_attribute: str = "meanelevation"
    area_attribute: str = "uparea"
    network_attributes: tuple[str, ...] | None = None
    projected: bool = True

    def __post_init__(self) -> None:
        if self.physics not in VARIANTS:
            raise ValueError(f"physics must be one of {', '.join(VARIANTS)}, not {self.physics!r}")
        if min(self.components, self.hidden, self.mlp_hidden) < 1:
            raise ValueError("components, hidden and mlp_hidden must be at least 1")
        try:
            self.variant()
        except KeyError as error:
            raise ValueError(
                f"dynamic_parameters names {error}, which physics {self.physics} lacks"
            ) from None

    def variant(self) -> Physics:
        """Return the physics with its dynamic parameters."""
        published = VARIANTS[self.physics].dynamic
        return physics_variant(
            self.physics, published if self.dynamic_parameters is None else self.dynamic_parameters
        )


class Catchments(NamedTuple):
    """What stays as it is while time passes: the catchments that a model is bound to.

    ``features [catchment, attribute]`` standardised; ``static [parameter, catchment, component]`` in physical units;
    ``hydrograph [length, catchment]`` (length 1 without routing); ``site [site, catchment]``.
    """

    features: Tensor
    static: Tensor
    hydrograph: Tensor
    site: Tensor


class HBVState(NamedTuple):
    """Everything that the past left: stores [mm], routed water under way [mm per step], and the network's memory.

    ``stores [store, catchment, component]``, ``under_way [length - 1, runoff flux, catchment]``, ``h`` and ``c``
    ``[catchment, hidden]``.
    """

    stores: Tensor
    under_way: Tensor
    h: Tensor
    c: Tensor


class DeltaHBV(nn.Module):
    """Differentiable HBV: network and physics (Feng et al. 2022; Song et al. 2024, 2025).

    Use `create` for a new model and `from_bundle` for a trained one.

    Parameters
    ----------
    hyperparameters : HBVHyperparameters
        Which HBV.
    attribute_names : sequence of str
        Catchment attributes, in the order of the network's inputs.
    normalisation : mapping
        ``{name: {"mean": ..., "std": ...}}`` of each forcing and attribute.
    """

    kind = "hbv"

    def __init__(
        self,
        hyperparameters: HBVHyperparameters,
        attribute_names: Sequence[str],
        normalisation: Mapping[str, Mapping[str, float]],
    ) -> None:
        super().__init__()
        hp = self.hyperparameters = hyperparameters
        self.physics = hp.variant()
        self.forcing_names = FORCINGS
        self.attribute_names = tuple(attribute_names)
        self.network_attributes = (
            self.attribute_names if hp.network_attributes is None else hp.network_attributes
        )
        standardised = (*FORCINGS, *self.network_attributes)
        for name in standardised:
            if name not in normalisation:
                raise ConfigurationError(f"hbv: the normalisation has no mean and std of {name!r}")
        self.normalisation = {name: dict(normalisation[name]) for name in standardised}
        self._network_columns = [self.attribute_names.index(name) for name in self.network_attributes]
        self.log_transformed = tuple(name in hp.log_transformed for name in FORCINGS)
        self.site_columns = self._find_sites()

        bounds = self.physics.bounds()
        self.dynamic_bounds = tuple(p for p in bounds if p.symbol in self.physics.dynamic)
        self.static_bounds = tuple(p for p in bounds if p.symbol not in self.physics.dynamic)
        m, attributes = hp.components, len(self.network_attributes)
        features = len(FORCINGS) + attributes
        routing = len(UNIT_ROUTING) if hp.routing else 0
        dynamic, static = len(self.dynamic_bounds) * m, len(self.static_bounds) * m + routing
        mlp = (hp.mlp_hidden, static, hp.mlp_layers)
        self.network: LstmNetwork | LstmMlpNetwork | TimescaleBranch
        if hp.network == "lstm":
            self.network = LstmNetwork(features, hp.hidden, dynamic + static, hp.dropout)
        elif hp.network == "lstm_mlp":
            self.network = LstmMlpNetwork(
                features, hp.hidden, dynamic, attributes, *mlp, hp.dropout, hp.mlp_dropout
            )
        else:
            self.network = TimescaleBranch(
                features, hp.hidden, dynamic, attributes, *mlp, hp.projected, hp.dropout, hp.mlp_dropout
            )
        is_dynamic = torch.tensor([p.symbol in self.physics.dynamic for p in bounds]).repeat_interleave(m)
        is_dynamic = torch.cat([is_dynamic, torch.zeros(routing, dtype=torch.bool)])
        self._constant("dynamic_channels", torch.nonzero(is_dynamic).squeeze(-1))
        self._constant("static_channels", torch.nonzero(~is_dynamic).squeeze(-1))
        for label, group in (("dynamic", self.dynamic_bounds), ("static", self.static_bounds)):
            self._constant(f"{label}_lower", torch.tensor([p.lower for p in group]))
            self._constant(f"{label}_upper", torch.tensor([p.upper for p in group]))
        for label, names in (("forcing", FORCINGS), ("attribute", self.network_attributes)):
            for statistic in ("mean", "std"):
                values = [float(self.normalisation[name][statistic]) for name in names]
                self._constant(f"{label}_{statistic}", torch.tensor(values))
        self._constant("log_mask", torch.tensor(self.log_transformed))

    dynamic_channels: Tensor
    static_channels: Tensor
    dynamic_lower: Tensor
    dynamic_upper: Tensor
    static_lower: Tensor
    static_upper: Tensor
    forcing_mean: Tensor
    forcing_std: Tensor
    attribute_mean: Tensor
    attribute_std: Tensor
    log_mask: Tensor

    def _constant(self, name: str, value: Tensor) -> None:
        """Keep a tensor that follows the model to its device and is not among its weights."""
        self.register_buffer(name, value, persistent=False)

    def _find_sites(self) -> tuple[int, ...]:
        """Columns of the attributes that the equations themselves use."""
        hp = self.hyperparameters
        wanted = {"elevation": hp.elevation_attribute, "upstream_area": hp.area_attribute}
        for site in self.physics.sites:
            if wanted[site] not in self.attribute_names:
                raise ConfigurationError(
                    f"hbv: physics {hp.physics} needs the attribute {wanted[site]!r} ({site}), "
                    f"which is not among the model's attributes"
                )
        return tuple(self.attribute_names.index(wanted[site]) for site in self.physics.sites)

    # Making and keeping models --------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        hyperparameters: Mapping[str, Any],
        forcing_names: Sequence[str],
        attribute_names: Sequence[str],
        normalisation: Mapping[str, Mapping[str, float]],
        seed: int,
    ) -> DeltaHBV:
        """Make a model with random weights.

        Parameters
        ----------
        hyperparameters
            Fields of `HBVHyperparameters`; those left out take their defaults.
        forcing_names
            Must be precipitation, temperature, potential_evapotranspiration, in this order.
        attribute_names
            Catchment attributes.
        normalisation
            ``{name: {"mean": ..., "std": ...}}`` of every forcing and attribute.
        seed
            Of the initial weights.

        Raises
        ------
        ConfigurationError
            If a hyper-parameter is unknown or out of range, a statistic is missing, or the forcing is another.
        """
        if tuple(forcing_names) != FORCINGS:
            raise ConfigurationError(
                f"hbv is driven by {', '.join(FORCINGS)}, in this order, not {forcing_names}"
            )
        try:
            parsed = msgspec.convert(dict(hyperparameters), HBVHyperparameters)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"hbv hyperparameters: {error}") from error
        model = cls(parsed, attribute_names, normalisation)
        model.network.reset_parameters(torch.Generator().manual_seed(seed))
        return model

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> DeltaHBV:
        """Make the model that a bundle describes, with its weights, in evaluation mode.

        Raises
        ------
        BundleError
            If the bundle is for another kind of model, or its weights do not fit its hyper-parameters.
        """
        if bundle.kind != cls.kind:
            raise BundleError(
                f"the bundle holds a {bundle.kind!r} model; DeltaHBV needs one of kind {cls.kind!r}"
            )
        try:
            hyperparameters = msgspec.convert(dict(bundle.hyperparameters), HBVHyperparameters)
            model = cls(hyperparameters, [a.name for a in bundle.attributes], bundle.normalisation)
        except (msgspec.ValidationError, ConfigurationError) as error:
            raise BundleError(f"the bundle's hyperparameters do not make an HBV model: {error}") from error
        model.load_weights(bundle.weights)
        return model.eval()

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take the network's weights, all of them and no others.

        Raises
        ------
        BundleError
            If a weight is absent, unknown or of another shape.
        """
        expected = self.network.state_dict()
        for name, tensor in expected.items():
            found = weights.get(name)
            if found is None or found.shape != tuple(tensor.shape):
                shape = "absent" if found is None else f"of shape {found.shape}"
                raise BundleError(f"the bundle's weight {name!r} is {shape}; {tuple(tensor.shape)} is needed")
        unknown = sorted(set(weights) - set(expected))
        if unknown:
            raise BundleError(f"the bundle holds weights that this model lacks: {', '.join(unknown)}")
        self.network.load_state_dict(
            {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        )

    def to_bundle(
        self,
        *,
        attributes: Sequence[NamedUnits] | None = None,
        provenance: Mapping[str, Any] | None = None,
        licence: str = "",
    ) -> TrainedModel:
        """Describe the model and its weights as a bundle to be saved; ``attributes`` adds units to the names."""
        return TrainedModel(
            kind=self.kind,
            hyperparameters=msgspec.to_builtins(self.hyperparameters),
            inputs=(
                NamedUnits("precipitation", "mm d-1"),
                NamedUnits("temperature", "degC"),
                NamedUnits("potential_evapotranspiration", "mm d-1"),
            ),
            attributes=tuple(attributes or (NamedUnits(name, "1") for name in self.attribute_names)),
            outputs=(NamedUnits("streamflow", "mm d-1"),),
            normalisation=self.normalisation,
            time_step=self.physics.time_step,
            provenance=dict(provenance or {}),
            licence=licence,
            weights={k: v.detach().cpu().numpy().copy() for k, v in self.network.state_dict().items()},
        )

    # Parameters -----------------------------------------------------------------------------------

    def standardise_attributes(self, attributes: Tensor) -> Tensor:
        """Standardise the attributes that the network reads of ``[catchment, attribute]``; NaN becomes the mean."""
        read = attributes[:, self._network_columns]
        return torch.nan_to_num((read - self.attribute_mean) / self.attribute_std, nan=0.0)

    def standardise_forcing(self, forcing: Tensor) -> Tensor:
        """Standardise ``[..., 3]``, through the logarithm where the model was trained so."""
        if any(self.log_transformed):
            logarithm = torch.log10(torch.sqrt(torch.clamp(forcing, min=0.0)) + 0.1)
            forcing = torch.where(self.log_mask, logarithm, forcing)
        return (forcing - self.forcing_mean) / self.forcing_std

    def _features(self, forcing: Tensor, features: Tensor) -> Tensor:
        repeated = features.expand(*forcing.shape[:-2], *features.shape)
        return torch.cat((self.standardise_forcing(forcing), repeated), dim=-1)

    def _scale(self, u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """From [0, 1] to physical units: ``[..., catchment, parameter * component]`` to ``[..., p, catchment, m]``."""
        return lower[:, None, None] + self._by_component(u) * (upper - lower)[:, None, None]

    def _by_component(self, u: Tensor) -> Tensor:
        m = self.hyperparameters.components
        return u.reshape(*u.shape[:-1], u.shape[-1] // m, m).transpose(-3, -2)

    @property
    def lstm(self) -> LstmLayer:
        """The recurrent layer."""
        return self.network.lstminv.lstm if isinstance(self.network, LstmMlpNetwork) else self.network.lstm

    def embedding(self) -> tuple[nn.Linear | None, bool]:
        """Return the layer before the recurrent one, if there is one, and whether ReLU follows it."""
        if isinstance(self.network, TimescaleBranch):
            return self.network.in_proj, False
        layer = self.network.lstminv if isinstance(self.network, LstmMlpNetwork) else self.network
        return layer.linear_in, True

    def readout(self) -> tuple[Tensor, Tensor]:
        """Return weights and bias of the layer from the hidden state to the dynamic parameters."""
        if isinstance(self.network, LstmNetwork):
            out, rows = self.network.linear_out, self.dynamic_channels
            return out.weight[rows], out.bias[rows]
        layer = self.network.lstminv if isinstance(self.network, LstmMlpNetwork) else self.network
        return layer.linear_out.weight, layer.linear_out.bias

    def raw_dynamic_parameters(self, hidden: Tensor) -> Tensor:
        """Read the dynamic parameters out of hidden states ``[..., catchment, hidden]``, before the sigmoid.

        Returns ``[..., catchment, parameter, component]``.
        """
        raw = nn.functional.linear(hidden, *self.readout())
        return raw.view(*raw.shape[:-1], len(self.dynamic_bounds), self.hyperparameters.components)

    def bind(self, attributes: Tensor, hidden: Tensor | None) -> Catchments:
        """Fix everything about the catchments that does not vary with time.

        Parameters
        ----------
        attributes
            ``[catchment, attribute]`` in physical units.
        hidden
            The LSTM's output at the step that decides the static parameters, ``[catchment, hidden]``; networks with an
            MLP do not need it.

        Raises
        ------
        ConfigurationError
            If the network needs ``hidden`` and it is not given.
        """
        features = self.standardise_attributes(attributes)
        if not isinstance(self.network, LstmNetwork):
            u = self.network.ann(features)
        elif hidden is None:
            raise ConfigurationError(
                "this model reads its static parameters out of a record of weather: give a warm-up or a climatology"
            )
        else:
            out, rows = self.network.linear_out, self.static_channels
            u = torch.sigmoid(nn.functional.linear(hidden, out.weight[rows], out.bias[rows]))
        count = len(self.static_bounds) * self.hyperparameters.components
        static = self._scale(u[..., :count], self.static_lower, self.static_upper)
        if self.hyperparameters.routing:
            a, b = (_within(p, u[..., count + i]) for i, p in enumerate(UNIT_ROUTING))
            hydrograph = unit_hydrograph(a, b, self.physics.routing_length)
        else:
            hydrograph = u.new_ones(1, u.shape[0])
        site = attributes[:, list(self.site_columns)].t().contiguous()
        return Catchments(features, static, hydrograph, site)

    # Running --------------------------------------------------------------------------------------

    @property
    def reads_static_parameters_from_weather(self) -> bool:
        """Whether `bind` needs a hidden state (1.x)."""
        return isinstance(self.network, LstmNetwork)

    def initial_state(self, catchments: int) -> HBVState:
        """Return the state before any weather: nearly empty stores, no water under way, no memory."""
        hp, weight = self.hyperparameters, self.lstm.w_hh
        length = self.physics.routing_length if hp.routing else 1
        h, c = self.lstm.initial_state(catchments)
        return HBVState(
            initial_stores(self.physics, catchments, hp.components, weight.dtype, weight.device),
            weight.new_zeros(length - 1, len(self.physics.runoff), catchments),
            h,
            c,
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """What `simulate` returns: streamflow and the routed parts of it, then stores and the other fluxes."""
        others = [f for f in self.physics.fluxes if f not in self.physics.runoff]
        return ("streamflow", "runoff", *self.physics.runoff, *self.physics.stores, *others)

    def simulate(self, state: HBVState, forcing: Tensor, catchments: Catchments) -> tuple[HBVState, Tensor]:
        """Run over a series from a state.

        Parameters
        ----------
        state
            From `initial_state` or an earlier call.
        forcing
            ``[time, catchment, 3]``: precipitation [mm d-1], temperature [degC], potential evapotranspiration [mm d-1].
        catchments
            From `bind`.

        Returns
        -------
        state : HBVState
            After the last step.
        outputs : Tensor
            ``[time, output, catchment]`` in the order of `output_names`: fluxes in mm d-1, stores in mm; streamflow
            and its parts are routed, "runoff" is not.
        """
        hidden, (h, c) = self._run_network(LstmState(state.h, state.c), forcing, catchments.features)
        dynamic = self.raw_dynamic_parameters(hidden)
        stores, under_way, outputs = self._run_physics(
            state, dynamic, forcing, catchments, self.output_names[2:]
        )
        return HBVState(stores, under_way, h, c), outputs

    def step(self, state: HBVState, forcing: Tensor, catchments: Catchments) -> tuple[HBVState, Tensor]:
        """Advance by one step of forcing ``[catchment, 3]``; outputs are ``[output, catchment]`` as in `simulate`."""
        state, outputs = self.simulate(state, forcing.unsqueeze(0), catchments)
        return state, outputs[0]

    def simulate_scaled(
        self,
        state: HBVState,
        forcing: Tensor,
        catchments: Catchments,
        scaling: tuple[Tensor, Tensor],
    ) -> tuple[HBVState, Tensor, Tensor]:
        """Run over a series with dynamic parameters ``lower + u * width`` of one's own.

        ``scaling`` is the pair, each ``[catchment, parameter, component]``; a width of 0 holds a parameter. Also
        returns the last step's dynamic parameters, of the same shape.
        """
        hidden, (h, c) = self._run_network(LstmState(state.h, state.c), forcing, catchments.features)
        dynamic = scaling[0] + torch.sigmoid(self.raw_dynamic_parameters(hidden)) * scaling[1]
        names = self.output_names[2:]
        run = self._run_physics(state, dynamic, forcing, catchments, names, raw=False)
        stores, under_way, outputs = run
        return HBVState(stores, under_way, h, c), outputs, dynamic[-1]

    def step_scaled(
        self,
        state: HBVState,
        forcing: Tensor,
        catchments: Catchments,
        scaling: tuple[Tensor, Tensor],
    ) -> tuple[HBVState, Tensor, Tensor]:
        """Advance by one step of `simulate_scaled`, with forcing ``[catchment, 3]``."""
        state, outputs, dynamic = self.simulate_scaled(state, forcing[None], catchments, scaling)
        return state, outputs[0], dynamic

    def _run_network(self, memory: LstmState, forcing: Tensor, features: Tensor) -> tuple[Tensor, LstmState]:
        """Hidden states ``[time, catchment, hidden]`` over a series, and the memory after it."""
        layer, rectified = self.embedding()
        x = self._features(forcing, features)
        if layer is not None:
            x = torch.relu(layer(x)) if rectified else layer(x)
        hidden, memory = self.lstm(x, memory)
        return hidden, memory

    def _run_physics(
        self,
        state: HBVState,
        dynamic: Tensor,
        forcing: Tensor,
        catchments: Catchments,
        names: tuple[str, ...],
        raw: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Physics and routing of ``names`` (runoff fluxes first); streamflow and unrouted runoff come before them."""
        run = self._simulate_physics(state, dynamic, forcing, catchments, names, raw)
        parts = len(self.physics.runoff)
        runoff = run.outputs[:, :parts]
        routed, under_way = route(runoff, catchments.hydrograph[:, None], state.under_way)
        totals = torch.stack((routed.sum(1), runoff.sum(1)), dim=1)
        return run.stores, under_way, torch.cat((totals, routed, run.outputs[:, parts:]), dim=1)

    def _simulate_physics(
        self,
        state: HBVState,
        dynamic: Tensor,
        forcing: Tensor,
        catchments: Catchments,
        names: tuple[str, ...],
        raw: bool = True,
    ) -> Series:
        weather = forcing.transpose(1, 2)
        static, site = catchments.static, catchments.site
        return simulate_physics(self.physics, state.stores, static, dynamic, weather, site, names, raw)

    def forward(self, forcing: Tensor, attributes: Tensor, warm_up: int) -> Tensor:
        """Simulate streamflow from nearly empty stores: what training and evaluation call.

        Parameters
        ----------
        forcing
            ``[time, catchment, 3]`` in physical units.
        attributes
            ``[catchment, attribute]`` in physical units.
        warm_up
            Steps at the start that only fill the stores (gradients pass through them).

        Returns
        -------
        Tensor
            Streamflow, mm d-1, ``[time - warm_up, catchment]``.

        Raises
        ------
        ValueShapeError
            If the shapes do not fit the model, or the warm-up leaves nothing.
        """
        self._check(forcing, attributes, warm_up)
        state = self.initial_state(forcing.shape[1])
        features = self.standardise_attributes(attributes)
        hidden, _ = self._run_network(LstmState(state.h, state.c), forcing, features)
        last = self.hyperparameters.static_parameters_from == "last_step" or warm_up == 0
        catchments = self.bind(attributes, hidden[-1 if last else warm_up - 1])
        dynamic = self.raw_dynamic_parameters(hidden)
        run = self._simulate_physics(state, dynamic, forcing, catchments, self.physics.runoff)
        streamflow, _ = route(run.outputs.sum(1), catchments.hydrograph)
        return streamflow[warm_up:]

    def warm_up(self, forcing: Tensor, attributes: Tensor) -> tuple[Catchments, HBVState]:
        """Fix the static parameters at the end of a record and bring the state there.

        ``simulate`` from here on gives what ``forward`` over the record and what follows gives with
        ``static_parameters_from="warm_up_end"``.
        """
        self._check(forcing, attributes, 0)
        state = self.initial_state(forcing.shape[1])
        features = self.standardise_attributes(attributes)
        hidden, (h, c) = self._run_network(LstmState(state.h, state.c), forcing, features)
        catchments = self.bind(attributes, hidden[-1])
        dynamic = self.raw_dynamic_parameters(hidden)
        stores, under_way, _ = self._run_physics(state, dynamic, forcing, catchments, self.physics.runoff)
        return catchments, HBVState(stores, under_way, h, c)

    def _check(self, forcing: Tensor, attributes: Tensor, warm_up: int) -> None:
        if forcing.dim() != 3 or forcing.shape[2] != len(FORCINGS):
            raise ValueShapeError(
                f"forcing has shape {tuple(forcing.shape)}; [time, catchment, 3] is needed ({', '.join(FORCINGS)})"
            )
        if tuple(attributes.shape) != (forcing.shape[1], len(self.attribute_names)):
            raise ValueShapeError(
                f"attributes have shape {tuple(attributes.shape)}; "
                f"[{forcing.shape[1]} catchments, {len(self.attribute_names)} attributes] is needed"
            )
        if not 0 <= warm_up < forcing.shape[0]:
            raise ValueShapeError(
                f"a warm-up of {warm_up} steps leaves nothing of a series of {forcing.shape[0]} steps"
            )


def _within(p: Parameter, u: Tensor) -> Tensor:
    return p.lower + u * (p.upper - p.lower)
