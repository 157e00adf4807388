"""Every component keeps every promise of the contract kit."""

from pathlib import Path

import pytest
from contract_cases import CASES, Case

from bmi_components.testing import check_component


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_component_keeps_the_contract(case: Case, tmp_path: Path) -> None:
    check_component(case.load(), case.config_file(tmp_path), **case.options)
