"""The coupled solution, converged."""
from __future__ import annotations
from typing import Any
def solve_coupled(*args: Any) -> Any:
    raise NotImplementedError
