"""JAX's threads, which a process chooses once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
from bmi_components.jax_devices import jax_device, start_jax

start_jax(int(sys.argv[1]))
assert os.environ.get("NPROC") == (sys.argv[2] or None)
import jax.numpy as jnp
jnp.ones((64, 64)) @ jnp.ones((64, 64))
assert jax_device("cpu").platform == jax_device("cpu:0").platform == "cpu"
print(len(list(Path("/proc/self/task").iterdir())))
"""


def _threads_of_a_process(configured: int, variable: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    if variable:
        environment["NPROC"] = variable
    command = [sys.executable, "-c", PROGRAM, str(configured), variable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_jax_has_as_many_threads_more_as_configured() -> None:
    one = _threads_of_a_process(1, "")
    assert _threads_of_a_process(1, "7") == one  # the configuration counts, not the environment
    assert _threads_of_a_process(4, "") >= one + 3
