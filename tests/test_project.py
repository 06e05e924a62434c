"""The project as it is shipped: locked, complete, and the same for everybody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

LOCKS = ["requirements.lock", "requirements-dev.lock"]


@pytest.fixture(scope="module")
def pyproject(checkout: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((checkout / "pyproject.toml").read_text())


def locked(lock: Path) -> dict[str, str]:
    """Package -> version, each line of which must have at least one hash."""
    entries = re.findall(
        r"^([a-z0-9._-]+)==([^ ;]+).*((?:\\\n +--hash=sha256:[0-9a-f]{64} ?)+)$", lock.read_text(), re.M
    )
    assert len(entries) == len(re.findall(r"^[a-z0-9]", lock.read_text(), re.M))
    return {name: version for name, version, _hashes in entries}


def name_of(requirement: str) -> str:
    return re.split(r"[=<>!~;\[ ]", requirement)[0].lower()


class TestLocks:
    @pytest.mark.parametrize("name", LOCKS)
    def test_names_no_place(self, checkout: Path, name: str) -> None:
        """A lock says what, not from where: no address, no index, no path of somebody's machine."""
        text = (checkout / name).read_text()
        assert not re.search(r"https?:|file:|index-url|find-links|[ =]/", text)

    def test_every_dependency_is_locked(
        self, checkout: Path, pyproject: dict[str, dict[str, object]]
    ) -> None:
        """All dependencies that pyproject names are in the lock, for running, building and developing."""
        project, groups = pyproject["project"], pyproject["dependency-groups"]
        run, develop = (locked(checkout / name) for name in LOCKS)
        for requirement in [*project["dependencies"], *groups["build"]]:  # type: ignore[misc, operator]
            assert name_of(requirement) in run
        for requirement in groups["dev"]:  # type: ignore[attr-defined]
            assert name_of(requirement) in develop

    def test_developers_run_what_users_run(self, checkout: Path) -> None:
        """The lock for developers holds all of the other, in the same versions."""
        run, develop = (locked(checkout / name) for name in LOCKS)
        assert run.items() <= develop.items()

    def test_hypercorn_is_pinned(self, pyproject: dict[str, dict[str, object]]) -> None:
        """The gateway leans on private names of one version of Hypercorn; no other may slip in."""
        assert "hypercorn==0.18.0" in pyproject["project"]["dependencies"]  # type: ignore[operator]


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with ZipFile(file) as archive:
        return set(archive.namelist())


class TestWheel:
    def test_holds_all_it_needs(self, checkout: Path, wheel: set[str]) -> None:
        """Every module, page and recording of the four packages, and the configuration files, are shipped."""
        for package in ("dataflow", "actors", "supervisors", "simulators"):
            for file in (checkout / package).rglob("*"):
                if "__pycache__" not in file.parts and file.is_file():  # other tests write there
                    assert file.relative_to(checkout).as_posix() in wheel
        assert {"dataflow/shipped/server.toml", "dataflow/shipped/simulated.toml"} <= wheel

    def test_holds_nothing_else(self, wheel: set[str]) -> None:
        """Tests and tools stay at home."""
        assert {name.partition("/")[0] for name in wheel} == {
            *("dataflow", "actors", "supervisors", "simulators"),
            "dataflow-0.1.0.dist-info",
        }


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make as a person would, also when these tests were started by make."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


class TestMake:
    def test_clean_removes_what_was_built(self, checkout: Path, tmp_path: Path) -> None:
        """All that git ignores, but the user's own data."""
        shutil.copy(checkout / "Makefile", tmp_path)
        ignored = (checkout / ".gitignore").read_text().split()
        for name in {line.rstrip("/") for line in ignored if "*" not in line} - {"/data"}:
            home = {"node_modules": "tests/node", "__pycache__": "actors"}.get(name, ".")
            (tmp_path / home / name).mkdir(parents=True)
        (tmp_path / "data").mkdir()
        assert make(tmp_path, "clean").returncode == 0
        left = {file.name for file in tmp_path.rglob("*")} - {"actors", "bench", "dataflow", "faces", "guide"}
        assert left == {"Makefile", "data", "tests", "node"}

    def test_help_names_every_target(self, checkout: Path) -> None:
        """`make` alone says what can be made."""
        told = make(checkout)
        targets = re.search(r"^\.PHONY: (.*)$", (checkout / "Makefile").read_text(), re.M)
        assert targets
        assert [line.split()[1] for line in told.stdout.splitlines()] == targets[1].split()

    def test_a_missing_python_is_said(self, checkout: Path, tmp_path: Path) -> None:
        """Without a usable Python the message says what is needed and how to point at one."""
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            (tmp_path / name).symlink_to(checkout / name)
        told = make(tmp_path, "run", "PYTHON=")
        assert told.returncode != 0
        assert told.stdout == ""
        assert told.stderr.splitlines()[:2] == [
            "dataflow needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv) and found none.",
            "If it is somewhere else: make run PYTHON=/path/to/python3",
        ]
