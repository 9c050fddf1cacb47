"""What is said in two places is the same in both."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

import kerastoolkit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    return read_ini("setup.cfg")


def read_ini(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / name, encoding="utf-8")
    return parser


def versions(requirements: str, relation: str) -> dict[str, tuple[int, ...]]:
    """Package -> version, of every line with this relation; 2.20 and 2.20.0 are the same."""
    found = re.findall(rf"^\s*([\w-]+) ?{relation} ?([\d.]+)(?:,!=[\d.*]+)*$", requirements, flags=re.MULTILINE)
    return {name: tuple(map(int, (version.split(".") + ["0", "0"])[:3])) for name, version in found}


def test_the_lowest_versions_are_the_ones_that_are_tested(setup_cfg):
    floors = versions(setup_cfg["options"]["install_requires"], ">=")
    extras = setup_cfg["options.extras_require"]
    for extra in ("optuna", "parquet", "polars"):
        floors |= versions(extras[extra], ">=")
    assert len(floors) >= 10
    assert versions(read_ini("tox.ini")["testenv:lowest"]["deps"], "==") == floors


def test_the_readme_says_what_the_continuous_integration_runs():
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sections[0] == kerastoolkit.__version__


def test_the_source_distribution_has_every_folder() -> None:
    grafted = {line.split()[1] for line in (ROOT / "MANIFEST.in").read_text().splitlines() if line.startswith("graft")}
    # Folders that a project has before anybody builds it, and those that git and tools make.
    made = {"build", "dist", "kerastoolkit.egg-info", "kerastoolkit", "__pycache__"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in made}
    assert {name for name in folders if not name.startswith(".")} == grafted - {".ci"}
