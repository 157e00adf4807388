"""Machine code for elementwise torch functions: traced by torch, compiled by LLVM, called without either.

A model's step is written once, as a pure torch function. torch traces it (and differentiates it), ``lowering``
turns the traced operations into LLVM instructions on vectors of lanes, and ``series`` wraps them into loops over
time and catchments.
"""

from bmi_components.kernels.dense import Dense
from bmi_components.kernels.elementwise import Elementwise
from bmi_components.kernels.series import SeriesKernel, SeriesSignature

__all__ = ["Dense", "Elementwise", "SeriesKernel", "SeriesSignature"]
