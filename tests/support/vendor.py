"""Fetches the files of others that the daemon serves to browsers: `python -m tests.support.vendor`. Needs a network.

To take a newer version, change it in the table below, empty its integrity, run this, and write down the one
that it tells. Tests compare the files with `SHA256SUMS`. A `NOTICE` that a licence asks for is kept by hand.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from base64 import b64encode
from hashlib import sha256, sha512
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.node import NODE, NPM

FACES = Path(__file__).parents[2] / "dataflow" / "faces"
GRAPHIQL = FACES / "graphql" / "graphiql" / "vendor"
CHARTS = FACES / "page" / "vendor"
# By folder and by name and version: the integrity that npm's registry tells, and the files that are taken.
Packages = dict[tuple[str, str], tuple[str, tuple[str, ...]]]
PACKAGES: dict[Path, Packages] = {
    GRAPHIQL: {
        ("graphiql", "3.9.0"): (
            "sha512-rJYFlHdBbug9+YbFSwRVvgfPjCayC7wHecZkx/qB4XLuQPFQZw/yB9pmHFtOJV6RiNBBHro3u1GdocKa3YcGRA==",
            ("graphiql.min.js", "graphiql.min.css", "LICENSE"),
        ),
        ("graphql-ws", "5.16.2"): (
            "sha512-E1uccsZxt/96jH/OwmLPuXMACILs76pKF2i3W861LpKBCYtGIyPQGtWLuBLkND4ox1KHns70e83PS4te50nvPQ==",
            ("umd/graphql-ws.min.js", "LICENSE.md"),
        ),
        ("react", "18.3.1"): (
            "sha512-wS+hAgJShR0KhEvPJArfuPVN1+Hz1t0Y6n5jLrGQbkb4urgPE/0Rve+1kMB1v/oWgHgm4WIcV+i7F2pTVj+2iQ==",
            ("umd/react.production.min.js", "LICENSE"),
        ),
        ("react-dom", "18.3.1"): (
            "sha512-5m4nQKp+rZRb09LNH59GM4BxTh9251/ylbKIbpe7TpGxfJ+9kv6BLkLBXIjjspbgbnIBNqlI23tRnTWT0snUIw==",
            ("umd/react-dom.production.min.js", "LICENSE"),
        ),
    },
    CHARTS: {
        ("lightweight-charts", "5.2.1"): (
            "sha512-IVwoK1RLFiLPubaKIjNbtjWLnpPMqiABSrTay6whmNa8L1+19292VtHJ+BWyPUuLCwF0tcQlhEWd1CLB2a1nsQ==",
            ("dist/lightweight-charts.standalone.production.mjs", "LICENSE"),
        ),
    },
}


def fetch(name: str, version: str, integrity: str, wanted: tuple[str, ...], into: Path) -> None:
    """Take `wanted` out of a package, if it is the very one. Raises SystemExit when it is another."""
    with TemporaryDirectory() as folder:
        command = [str(NODE), str(NPM), "pack", f"{name}@{version}", "--pack-destination", folder, "--silent"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        found = "sha512-" + b64encode(sha512(archive.read_bytes()).digest()).decode()
        if found != integrity:
            sys.exit(f"{name}@{version} is {found}, not {integrity or 'written down yet'}")
        with tarfile.open(archive) as members:
            for path in wanted:
                member = members.extractfile(f"package/{path}")
                assert member is not None, path
                file = Path(path).name
                file = f"LICENSE.{name}" if file.startswith("LICENSE") else file
                (into / file).write_bytes(member.read())


def sums(folder: Path) -> str:
    """The checksums of all files there, as `sha256sum` writes them."""
    files = sorted(each for each in folder.iterdir() if each.name != "SHA256SUMS")
    return "".join(f"{sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files)


def main() -> None:
    for folder, packages in PACKAGES.items():
        folder.mkdir(exist_ok=True)
        for (name, version), (integrity, wanted) in packages.items():
            fetch(name, version, integrity, wanted, folder)
        (folder / "SHA256SUMS").write_text(sums(folder))


if __name__ == "__main__":
    main()
