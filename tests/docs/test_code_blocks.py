"""What the documentation tells a reader to type works: README and docs run here, block by block."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

NOT_RUN = {
    "needs ngen": 4,
    "needs pymt": 3,
    "needs eWaterCycle": 2,
    "needs a container engine": 1,
    "makes the environment": 5,
    "takes hours": 2,
    "takes minutes": 5,
    "needs data of yours": 7,
}
"""How many blocks may stand without being run, by reason; one more is a decision that changes a number."""

SHOWN = {"css", "diff", "ini", "text", "toml", "yaml"}
"""Languages that are only shown. JSON is parsed."""

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)[^`\n]*$")
REASON = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts (line of the fence), its language, its text and why it is not run."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Read the fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    start: int | None = None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = number
            continue
        opening = FENCE.match(lines[start])
        assert opening is not None
        indent = len(opening["indent"])
        reason = REASON.match(lines[start - 1]) if start else None
        text = "\n".join(inner[indent:] for inner in lines[start + 1 : number]) + "\n"
        found.append(Block(page, start + 1, opening["language"], text, reason["reason"] if reason else None))
        start = None
    assert start is None, f"{page.name}: the block opened on line {(start or 0) + 1} is not closed"
    return found


BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = {"python", "console", "bash"}
TO_RUN = [page for page, blocks in BLOCKS.items() if any(block.language in RUN for block in blocks)]


def commands_of(block: Block) -> str:
    """Return what a reader would type: the lines after ``$ `` of a console session, or the whole script."""
    if block.language == "bash":
        return block.text
    typed = [line for line in block.text.splitlines() if line.startswith(("$ ", "> "))]
    assert typed, f"{block.place}: a console block without a '$ ' line types nothing"
    return "\n".join(line[2:] for line in typed)


def ngen_folder(folder: Path, shared_data: Path) -> None:
    """Lay out the sample data of a clone of ngen."""
    (folder / "ngen" / "data").mkdir(parents=True)
    for name in ("catchment_data.geojson", "nexus_data.geojson", "forcing"):
        (folder / "ngen" / "data" / name).symlink_to(shared_data / "nextgen" / name)


def reader_folder(folder: Path) -> None:
    """Lay out the parts of the repository that commands name, so that what they write lands elsewhere."""
    for name in ("configs", "ngen_realizations"):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, folder / name)
    (folder / "docs").mkdir()
    for name in ("models", "docs/examples", "benchmarks"):
        if (REPOSITORY / name).is_dir():
            (folder / name).symlink_to(REPOSITORY / name)


@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    reader_folder(tmp_path)
    if any("ngen/data/" in block.text for block in BLOCKS[page] if block.not_run is None):
        ngen_folder(tmp_path, request.getfixturevalue("shared_data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    )
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.not_run is not None:
            continue
        if block.language == "python":
            code = "\n" * block.line + block.text  # so that a traceback names the page's own line
            exec(compile(code, str(page), "exec", dont_inherit=True), namespace)
        elif block.language in ("bash", "console"):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", commands_of(block)],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_block_says_its_language(page: Path) -> None:
    for block in BLOCKS[page]:
        if block.language == "json":
            json.loads(block.text)
        else:
            assert block.language in RUN | SHOWN, f"{block.place}: {block.language!r}"


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    reasons = Counter(b.not_run for blocks in BLOCKS.values() for b in blocks if b.not_run is not None)
    assert dict(reasons) == {reason: count for reason, count in NOT_RUN.items() if count}


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (REPOSITORY / target).exists(), f"README.md links to {target}, which is not there"
