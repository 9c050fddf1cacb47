"""Node and a browser, for what exports to the web compute there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_PACKAGES = Path(__file__).with_name("web") / "node_modules"


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """The packages of tests/export/web/package-lock.json, for NODE_PATH; a test that asks for them skips without."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed: apt install nodejs npm")
    if not (_PACKAGES / "@tensorflow" / "tfjs").is_dir():
        pytest.skip("Node has not the packages of the tests: npm ci --ignore-scripts --prefix tests/export/web")
    return _PACKAGES


@pytest.fixture
def in_node(node_packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an export find TensorFlow.js in Node."""
    monkeypatch.setenv("NODE_PATH", str(node_packages))


@pytest.fixture
def without_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lets an export find no TensorFlow.js, as on most machines."""
    monkeypatch.delenv("NODE_PATH", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program of a browser; a test that asks for it skips without."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        program = shutil.which(name)
        if program is not None:
            return program
    pytest.skip("There is no browser: apt install chromium")
