"""A coupling as one differentiable function: what its steps do, over whole series, across PyTorch and JAX."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bmi_components.differentiable import Differentiable
from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError, ValueShapeError
from bmi_components.jax_precision import jax_precision

if TYPE_CHECKING:
    from bmi_components.coupling import Coupling, PlannedLink

__all__ = ["simulate"]


# A member -----------------------------------------------------------------------------------------------------------


class _JaxSeries(Function):
    """A function of JAX arrays as an operation of PyTorch: forward and vector-Jacobian product by JAX, by DLPack."""

    @staticmethod
    def forward(
        context: Any, member: Differentiable, function: Callable[..., tuple[Any, ...]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        import jax

        wanted = [index for index, needed in enumerate(context.needs_input_grad[2:]) if needed]
        with jax_precision(member.dtype):
            arrays = [_to_jax(tensor) for tensor in tensors]

            def of_wanted(*varied: Any) -> tuple[Any, ...]:
                everything = list(arrays)
                for index, value in zip(wanted, varied, strict=True):
                    everything[index] = value
                return function(*everything)

            if wanted:
                results, context.pull_back = jax.vjp(of_wanted, *(arrays[index] for index in wanted))
            else:
                results = function(*arrays)
            context.member, context.wanted, context.count = member, wanted, len(tensors)
            return tuple(_to_torch(result) for result in results)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with jax_precision(context.member.dtype):
            pulled = context.pull_back(tuple(_to_jax(gradient) for gradient in gradients))
            found: list[Tensor | None] = [None] * context.count
            for index, gradient in zip(context.wanted, pulled, strict=True):
                found[index] = _to_torch(gradient)
        return None, None, *found


# Both ways a copy: JAX counts on its arrays never changing, PyTorch's may be written into.
def _to_jax(tensor: Tensor) -> Any:
    import jax.numpy as jnp

    return jnp.array(jnp.from_dlpack(tensor.detach().contiguous()), copy=True)


def _to_torch(array: Any) -> Tensor:
    tensor: Tensor = torch.utils.dlpack.from_dlpack(array).clone()
    return tensor


class _Member:
    """A component of the coupling, as a function of tensors.

    Parameters
    ----------
    name
        Its name in the coupling.
    component
        The component.
    parameters
        Those that are varied, by name.
    """

    def __init__(self, name: str, component: Any, parameters: Mapping[str, Any]) -> None:
        self.name, self.component = name, component
        if not hasattr(component, "differentiable"):
            raise ConfigurationError(
                f"{name}: {type(component).__name__} has no differentiable(), by which it could be simulated"
            )
        self.function: Differentiable = component.differentiable()
        self.parameters = {key: self._parameter(key, value) for key, value in parameters.items()}
        self.names: tuple[str, ...] = tuple(component.get_output_var_names())
        if self.function.framework == "jax":
            import jax

            leaves, self._structure = jax.tree_util.tree_flatten(self.function.state)
            self._state: Any = [self.tensor(np.asarray(leaf)) for leaf in leaves]
        else:
            self._state = self.function.state

    def tensor(self, values: Any) -> Tensor:
        """Return values where, and of the type, that the component wants them."""
        if not isinstance(values, Tensor):
            if isinstance(values, (int, float, list, tuple)):
                values = np.asarray(values)
            if isinstance(values, np.ndarray):
                values = np.array(values, np.float64)
            values = torch.utils.dlpack.from_dlpack(values)
        return values.to(self.function.device, getattr(torch, self.function.dtype))  # type: ignore[no-any-return]

    def size(self, variable: str) -> int:
        """Return the number of elements of a variable."""
        component = self.component
        return int(component.get_var_nbytes(variable) // component.get_var_itemsize(variable))

    def _parameter(self, key: str, value: Any) -> Tensor:
        known = self.function.parameters
        if key not in known:
            raise UnknownNameError(f"{self.name} has no parameter {key!r} to vary; it has {', '.join(known)}")
        tensor, shape = self.tensor(value), known[key]
        if tensor.numel() != 1 and tuple(tensor.shape) != shape:
            raise ValueShapeError(
                f"{self.name}:{key} has the shape {tuple(tensor.shape)}; {shape} or one number is needed"
            )
        low, high = self.function.bounds.get(key, (-np.inf, np.inf))
        if not bool(((tensor >= low) & (tensor <= high)).all()):
            raise ConfigurationError(
                f"{self.name}:{key} is {tensor.detach().reshape(-1).tolist()}; "
                f"it must be between {low:g} and {high:g}"
            )
        return tensor.reshape(shape) if tensor.numel() == np.prod(shape) else tensor.expand(shape)

    def run(self, inputs: Mapping[str, Tensor], time: float) -> dict[str, Tensor]:
        """Go on over some steps; return the outputs, float64."""
        given = {name: self.tensor(self._checked(name, values)) for name, values in inputs.items()}
        if self.function.framework == "jax":
            outputs = self._run_jax(given, time)
        else:
            self._state, found = self.function.simulate(self.parameters, self._state, given, time)
            outputs = [found[name] for name in self.names]
        return {name: values.double() for name, values in zip(self.names, outputs, strict=True)}

    def _run_jax(self, inputs: Mapping[str, Tensor], time: float) -> Sequence[Tensor]:
        import jax

        keys, names = list(self.parameters), list(inputs)
        tensors = [*self.parameters.values(), *self._state, *inputs.values()]
        first, second = len(keys), len(keys) + len(self._state)

        def function(*arrays: Any) -> tuple[Any, ...]:
            state, outputs = self.function.simulate(
                dict(zip(keys, arrays[:first], strict=True)),
                jax.tree_util.tree_unflatten(self._structure, arrays[first:second]),
                dict(zip(names, arrays[second:], strict=True)),
                time,
            )
            return (*jax.tree_util.tree_leaves(state), *(outputs[name] for name in self.names))

        results = _JaxSeries.apply(self.function, function, *tensors)  # type: ignore[no-untyped-call]
        self._state = list(results[: second - first])
        found: Sequence[Tensor] = results[second - first :]
        return found

    def _checked(self, name: str, values: Tensor) -> Tensor:
        """Refuse what a step would refuse."""
        variable = getattr(self.component, "variables", {}).get(name)
        low, high = (variable and variable.valid_range) or (-np.inf, np.inf)
        wrong = ~((values >= low) & (values <= high))
        if variable is not None and variable.nan_is_data:
            wrong &= ~values.isnan()
        if bool(wrong.any()):
            step, element = (int(i) for i in wrong.nonzero()[0])
            raise ForcingError(
                f"{self.name}: the input {name!r} is {values[step, element].item():g} at element {element}, {step} "
                f"steps on; it must be between {low:g} and {high:g}"
            )
        return values


# What flows ---------------------------------------------------------------------------------------------------------


class _Series:
    """Rows ``[step, element]`` of an output that come in blocks."""

    def __init__(self, past: Tensor) -> None:
        self._blocks = [past]
        self._starts = [0]
        self.length = len(past)

    def append(self, block: Tensor) -> None:
        """Take the next rows."""
        self._starts.append(self.length)
        self._blocks.append(block)
        self.length += len(block)

    def rows(self, first: int, last: int) -> Tensor:
        """Return the rows from ``first`` up to, but without, ``last``."""
        begin, end = bisect_right(self._starts, first) - 1, bisect_right(self._starts, last - 1)
        blocks = self._blocks[begin:end]
        joined = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        return joined[first - self._starts[begin] : last - self._starts[begin]]


@dataclass
class _Flow:
    """What a link carries over the simulation: which rows of the source each step of the target takes."""

    link: PlannedLink
    series: _Series
    reach: NDArray[np.intp]
    """How many rows of the source the target's steps up to each one need."""

    @classmethod
    def of(cls, link: PlannedLink, device: str) -> _Flow:
        past = torch.stack([torch.as_tensor(np.array(values, np.float64)) for values in link.past]).to(device)
        last = [max(column for column, _ in shares) + 1 for shares in link.shares]
        return cls(link, _Series(past), np.maximum.accumulate(np.array(last, np.intp)))

    def ready(self, done: int) -> int:
        """Return up to which step the target could go with what the source has given."""
        return int(np.searchsorted(self.reach, self.series.length, side="right")) if len(self.reach) else done

    def values(self, begin: int, end: int) -> Tensor:
        """Return what the target's steps ``begin`` to ``end`` get, ``[step, element of the target]``."""
        shares = self.link.shares[begin:end]
        columns = [column for row in shares for column, _ in row]
        first = min(columns)
        rows = self.series.rows(first, max(columns) + 1)
        at = torch.tensor([row for row, found in enumerate(shares) for _ in found], device=rows.device)
        factors = rows.new_tensor([factor for row in shares for _, factor in row])
        parts = rows[torch.tensor(columns, device=rows.device) - first] * factors[:, None]
        taken: Tensor = self.link.bound.convert(
            rows.new_zeros(len(shares), rows.shape[1]).index_add(0, at, parts)
        )
        weights = self.link.bound.weights
        return taken if weights is None else taken @ taken.new_tensor(np.asarray(weights, np.float64)).T


# The whole ----------------------------------------------------------------------------------------------------------


def simulate(
    coupling: Coupling,
    until: float,
    record: Iterable[str],
    parameters: Mapping[str, Any],
    feeds: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Do what ``Coupling.simulate`` says."""
    wanted = {where: coupling.find(where, "output") for where in record}
    varied: dict[str, dict[str, Any]] = {name: {} for name in coupling.components}
    for where, value in parameters.items():
        name, colon, key = where.partition(":")
        if not colon or name not in varied:
            raise ConfigurationError(
                f"the parameter {where!r} is not written 'component:parameter' with one of {', '.join(varied)}"
            )
        varied[name][key] = value
    members = {name: _Member(name, c, varied[name]) for name, c in coupling.components.items()}
    plan = coupling.plan(until)
    flows = [_Flow.of(link, members[link.bound.source].function.device) for link in plan.links]
    given = {
        name: _given(coupling, member, plan.begins[name], feeds, flows) for name, member in members.items()
    }
    kept: dict[str, list[Tensor]] = {where: [] for where in wanted}
    done = dict.fromkeys(members, 0)
    while any(done[name] < len(begins) for name, begins in plan.begins.items()):
        for name, member in members.items():
            coming = [flow for flow in flows if flow.link.bound.target == name]
            first = done[name]
            last = min([len(plan.begins[name]), *(flow.ready(first) for flow in coming)])
            if last <= first:
                continue
            inputs = {key: values[first:last] for key, values in given[name].items()}
            inputs |= {flow.link.bound.input: flow.values(first, last) for flow in coming}
            outputs = member.run(inputs, plan.begins[name][first])
            for flow in flows:
                if flow.link.bound.source == name:
                    flow.series.append(outputs[flow.link.bound.output])
            for where, (owner, variable) in wanted.items():
                if owner == name:
                    kept[where].append(outputs[variable])
            done[name] = last
    for where, (owner, variable) in wanted.items():
        if not kept[where]:  # no step ends by then
            kept[where].append(torch.zeros(0, members[owner].size(variable), dtype=torch.float64))
    return {where: torch.cat(blocks) for where, blocks in kept.items()}


def _given(
    coupling: Coupling,
    member: _Member,
    begins: Sequence[float],
    feeds: Mapping[str, Any],
    flows: Sequence[_Flow],
) -> dict[str, Tensor]:
    """Return the inputs of a component that no link feeds, ``[step, element]``."""
    name, component = member.name, member.component
    linked = {flow.link.bound.input for flow in flows if flow.link.bound.target == name}
    own = {}
    for where, values in feeds.items():
        owner, variable = coupling.find(where, "input")
        if owner == name:
            own[variable] = values
    inputs: dict[str, Tensor] = {}
    for variable in component.get_input_var_names():
        if variable in linked:
            if variable in own:
                raise ConfigurationError(f"the input {name}:{variable} is fed more than once")
            continue
        size = member.size(variable)
        if variable in own:
            values = member.tensor(own[variable])
            values = values.reshape(len(values), -1)
            if len(values) < len(begins) or values.shape[1] != size:
                raise ValueShapeError(
                    f"the feed of {name}:{variable} has the shape {tuple(values.shape)}; "
                    f"({len(begins)}, {size}) is needed"
                )
            inputs[variable] = values[: len(begins)]
        else:
            rows = coupling.fed(name, variable, begins)
            if rows is None:  # inputs keep their values until they are set again
                rows = np.broadcast_to(component.get_value_ptr(variable), (len(begins), size))
            inputs[variable] = torch.as_tensor(np.array(rows, np.float64)).to(member.function.device)
    return inputs
