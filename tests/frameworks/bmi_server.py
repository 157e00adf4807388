"""A component behind grpc4bmi's ``run-bmi-server``, on loopback, for as long as a test takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

if os.environ.get("CI", "").lower() not in ("1", "true"):  # continuous integration installs the extra "test"
    pytest.importorskip("grpc4bmi", reason="grpc4bmi is not installed: it comes with the extra 'grpc'")

import grpc
from grpc4bmi.bmi_grpc_client import BmiClient
from grpc4bmi.bmi_pb2_grpc import BmiServiceStub


class Server:
    """``run-bmi-server`` on a free port, until the block ends."""

    def __init__(self, name: str, log: Path, *options: str) -> None:
        command = shutil.which("run-bmi-server", path=str(Path(sys.executable).parent))
        assert command is not None, "grpc4bmi installs run-bmi-server beside the interpreter"
        self._port = BmiClient.get_unique_port("localhost")
        self._log = log
        self._patience = time.monotonic() + 120.0
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [command, "--name", name, "--port", str(self._port), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> BmiClient:
        while self._process.poll() is None and time.monotonic() < self._patience:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self._port)):
                # A stub rather than the channel: waiting for a channel leaves a thread that resents its closing.
                self._channel = grpc.insecure_channel(f"localhost:{self._port}")
                return BmiClient(stub=BmiServiceStub(self._channel))
            time.sleep(0.1)
        self._process.kill()
        self._process.wait()
        pytest.fail(f"the server did not start:\n{self._log.read_text()}")

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(timeout=30) == 0
