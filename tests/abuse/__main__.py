"""`python -m tests.abuse [--short] [--json] [NAME]...`: attacks the daemon, one way after the other.

Exit code 0: every promise held. 1: a wrong argument. 2: a promise was broken; the line below the row says which.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.support.certificates import make_certificate

from .attacks import ALL, Attack
from .trial import HEAD, Result, row, trial

SECONDS, SHORT_SECONDS = 10.0, 2.0


def main(words: Sequence[str]) -> int:
    options = _options(words)
    known = {attack.name: attack for attack in ALL}
    if unknown := [name for name in options.names if name not in known]:
        print(f"no attack {', '.join(unknown)}; known are {', '.join(known)}", file=sys.stderr)
        return 1
    if sys.platform != "linux":
        print("the attacks need Linux (/proc, addresses from 127.0.0.2 on)", file=sys.stderr)
        return 1
    _raise_file_limit()
    chosen = [known[name] for name in options.names] or [
        attack for attack in ALL if (attack.short if options.short else attack.by_default)
    ]
    seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    results = _carry_out(chosen, seconds, options.json)
    if options.json:
        print(json.dumps([result.plain() for result in results], indent=1))
    return 2 if any(result.broken for result in results) else 0


def _carry_out(chosen: Sequence[Attack], seconds: float, quiet: bool) -> list[Result]:
    results = []
    if not quiet:
        print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for attack in chosen:
            result = trio.run(trial, attack, max(seconds, attack.least), Path(folder), certificate)
            results.append(result)
            if not quiet:
                print(row(result), flush=True)
            for broken in result.broken:
                print(f"BROKEN: {attack.name}: {broken}", file=sys.stderr, flush=True)
    return results


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.abuse",
        description="Attack a daemon of its own on the loopback, and see whether a bystander notices.",
        epilog="\n".join(f"{attack.name:22}{attack.about}" for attack in ALL),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="an attack; default: all but `hour`")
    parser.add_argument("--short", action="store_true", help="a few of them, two seconds each, as CI does")
    parser.add_argument("--seconds", type=float, default=0.0, help=f"of an attack (default: {SECONDS:.0f})")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args(words)


def _raise_file_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
