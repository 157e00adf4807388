"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bmi_components import __version__
from bmi_components.cli import main


def test_every_subcommand_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "train", "evaluate", "import", "flux", "fourdvarnet", "canveg", "nextgen"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert f"bmi-components {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_help_loads_no_framework() -> None:
    code = (
        "import sys\n"
        "from bmi_components.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'xarray', 'netCDF4'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
