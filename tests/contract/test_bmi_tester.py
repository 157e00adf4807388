"""Every component passes CSDMS's own bmi-tester, each in its own process."""

from pathlib import Path

import pytest
from contract_cases import CASES, Case

from bmi_components.testing import ContractError, run_bmi_tester


@pytest.mark.parametrize("case", [case for case in CASES if case.bmi_tester], ids=lambda case: case.label)
def test_component_passes_bmi_tester(case: Case, tmp_path: Path) -> None:
    case.load()
    report = run_bmi_tester(case.component, case.config_file(tmp_path))
    assert "All tests passed" in report


def test_bmi_tester_checks_units_and_fails_a_component_with_wrong_ones(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("residence_time: [5.0]\n")
    with pytest.raises(ContractError, match="test_get_var_units"):
        run_bmi_tester("broken_components:WrongUnits", tmp_path / "config.yaml")
