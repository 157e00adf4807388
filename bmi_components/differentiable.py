"""A component as a pure function of parameters, state and series of inputs: what gradients through a coupling need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Differentiable"]

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Differentiable:
    """A component as it stands, as a function that PyTorch or JAX can differentiate.

    ``simulate(parameters, state, inputs, time) -> (state, outputs)`` changes nothing and gives what ``update`` would
    give, step by step:

    * ``parameters``: those that the caller varies, by name, each of its shape in `parameters`; the others stay as
      they are in the component.
    * ``state``: a pytree whose leaves are floating-point arrays.
    * ``inputs``: each input by its BMI name, in its BMI units, ``[step, element]``.
    * ``time``: when the first step begins, s since the start.
    * ``outputs``: the outputs by their BMI names, in their BMI units, ``[step, element]``; an amount per update is that
      of one step.

    Attributes
    ----------
    framework
        Of ``simulate``: it takes and returns PyTorch tensors or JAX arrays (of JAX: compile it with ``jax.jit``).
    simulate
        The function.
    state
        The component's state now.
    parameters
        Name and shape of each parameter by which ``simulate`` can be differentiated.
    bounds
        Lowest and highest value of parameters that have them.
    device, dtype
        Where ``simulate`` wants its arrays, and of which type.
    """

    framework: Literal["torch", "jax"]
    simulate: Callable[[Arrays, Any, Arrays, float], tuple[Any, Arrays]]
    state: Any
    parameters: Mapping[str, tuple[int, ...]]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float64"
