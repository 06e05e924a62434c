"""No output holds a secret: planted ones are looked for in everything that the daemon and the commands say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from dataflow.cli import main
from simulators import open_binance
from tests.support.ports import own_port
from tests.system.daemon import client, http_client

OPERATOR = "planted-operator"
PASSWORD = "planted-p%40ssword"
IN_QUERY = "planted-listen-key"
OF_CONNECTOR = "planted-api-secret"
PLANTED = (OPERATOR, PASSWORD, "planted-p@ssword", IN_QUERY, OF_CONNECTOR)

# Its errors hold all that it knows, as those of a careless connector do.
LEAKY = """
from attrs import frozen
from dataflow.sources.port import SourceSettings

@frozen(kw_only=True)
class Settings(SourceSettings):
    api_secret: str

class Codec:
    def __init__(self, name, settings):
        self.settings = settings

    def headers(self):
        raise RuntimeError(f"{self.settings} of {self.settings.url}: no access with {self.settings.api_secret}")

    def missed(self, symbol):
        return None
"""


def address(url: str) -> str:
    return url.replace("://", f"://user:{PASSWORD}@") + f"?listenKey={IN_QUERY}"


def configuration(port: int, url: str) -> str:
    return f"""
[gateway]
port = {port}
admin_token = "{OPERATOR}"
[backoff]
initial_delay = 0.05
[sources.binance]
connector = "binance"
url = "{address(url)}"
symbols = ["BTC-USDT"]
eager = true
[sources.away]
connector = "binance"
url = "{address("ws://127.0.0.1:1/stream")}"
symbols = ["ETH-USDT"]
[sources.leaky]
connector = "careless.connector"
url = "{address(url)}"
api_secret = "{OF_CONNECTOR}"
symbols = ["BTC-USD"]
"""


def clean(said: bytes | str) -> str:
    """A text in which no planted secret stands, not even its beginning."""
    text = said.decode() if isinstance(said, bytes) else said
    assert [line for line in text.splitlines() if "planted" in line] == []
    return text


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dataflow", *words]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "careless").mkdir()
    (tmp_path / "careless" / "connector.py").write_text(LEAKY)
    usual = {name: value for name, value in os.environ.items() if not name.startswith("DATAFLOW__")}
    return usual | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))}


async def test_a_running_daemon_tells_no_secret(tmp_path: Path, environ: dict[str, str]) -> None:
    """Not in its log at its lowest level, in crashes, in the tree, in metrics, to its clients, or by a command."""
    port = own_port()
    file, log = tmp_path / "mine.toml", tmp_path / "log"
    async with open_binance() as exchange, trio.open_nursery() as nursery:
        file.write_text(configuration(port, exchange.url))
        options = ("--log-level", "debug", "--log-file", str(log))
        started = command("run", "--config", str(file), *options)
        run = partial(
            trio.run_process, started, env=environ, capture_stdout=True, capture_stderr=True, check=False
        )
        found: list[subprocess.CompletedProcess[bytes]] = []

        async def keep(task_status: trio.TaskStatus[trio.Process]) -> None:
            found.append(await run(task_status=task_status))

        process = await nursery.start(keep)
        url = f"http://127.0.0.1:{port}"
        await until_crashed(url)
        asked = {"Authorization": f"Bearer {OPERATOR}"}
        async with http_client(url) as http, client(f"ws://127.0.0.1:{port}/ws") as listener:
            actors = ("/actors", "/actors/sources/leaky", "/actors/sources/leaky/lines/1")
            for path in ("/ready", *actors, "/api/v1/sources", "/metrics", "/health", "/nowhere"):
                clean((await http.get(path)).text)
                clean((await http.get(path, headers=asked)).text)
            refused = await http.post(
                "/actors/gateway/herald/restart", headers={"Authorization": "Bearer no"}
            )
            assert refused.status_code == 401
            clean(refused.text)
            await listener.call("subscribe", symbol="ETH-USDT")
            clean(str(await listener.call("getStatus")))
            clean(str(listener.notices))
        ours = url.replace("://", f"://user:{PASSWORD}@")
        for words in (
            ("status",),
            ("status", "--json", "--token", OPERATOR),
            ("fault", "--list", "--token", OPERATOR),
            ("tail", "BTC-EUR"),
        ):
            told = await trio.run_process(
                command(*words, "--url", ours if words == ("status",) else url),
                env=environ,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            clean(told.stdout + told.stderr)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    (ended,) = found
    clean(ended.stdout + ended.stderr)
    text = clean(log.read_text())
    assert "no access with ***" in text  # it was said, and hidden


async def until_crashed(url: str) -> None:
    """Wait until the careless connector has crashed, so that its error is to be seen everywhere."""
    async with http_client(url) as http:
        while True:
            try:
                answer = await http.get(
                    "/actors/sources/leaky/lines/1", headers={"Authorization": f"Bearer {OPERATOR}"}
                )
            except httpx.TransportError:
                await trio.lowlevel.checkpoint()
                continue
            if answer.json().get("last_error"):
                return


KEY = "-----BEGIN PRIVATE KEY-----\\nplanted\\n-----END PRIVATE KEY-----"
WRONG = {
    "number": f'[gateway]\nport = "{address("ws://h")}"',
    "table": f'[gateway]\nhost = {{ admin_token = "{OPERATOR}", url = "{address("ws://h")}" }}',
    "list": f'[gateway]\nadmin_token = ["{OPERATOR}"]',
    "tables": f'[sources]\nbinance = "{address("ws://h")}"',
    "url": f'[sources.a]\nconnector = "binance"\nurl = ["{address("ws://h")}"]',
    "no url": f'[sources.a]\nconnector = "binance"\nurl = "user:{PASSWORD}@host/path"',
    "slash": '[sources.a]\nconnector = "binance"\nurl = "://user:planted/planted@host"',
    "secret": '[sources.a]\nconnector = "careless.connector"\nurl = "ws://h/"\napi_secret = ["planted"]',
    "pasted": f'[gateway]\ntls_certificate = "x"\ntls_key = "{KEY}"',
    "pasted alone": f'[gateway]\ntls_key = "{KEY}"',
}


@pytest.fixture
def said(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Calls a command. Gives its exit code and its output without secrets."""
    monkeypatch.syspath_prepend(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, clean(out + err)

    return call


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_mistakes_repeat_no_secret(tmp_path: Path, said: Callable[..., tuple[int, str]], text: str) -> None:
    """Whatever is wrong, and wherever the secret stands: in its own key, or in another by mistake."""
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    for words in (["check", str(file)], ["check", str(file), "--json"], ["run", "--config", str(file)]):
        code, told = said(*words)
        assert code == 1
        assert str(file) in told or "tls_key" in told


def test_variables_repeat_no_secret(
    monkeypatch: pytest.MonkeyPatch, said: Callable[..., tuple[int, str]]
) -> None:
    """A mistake names the variable, and not what is secret in it."""
    monkeypatch.setenv("DATAFLOW__GATEWAY__ADMIN_TOKEN", f'["{OPERATOR}"]')
    monkeypatch.setenv("DATAFLOW__GATEWAY__PORT", address("ws://h"))
    monkeypatch.setenv("DATAFLOW__SOURCES__A__CONNECTOR", "binance")
    monkeypatch.setenv("DATAFLOW__SOURCES__A__URL", f'["{address("ws://h")}"]')
    code, told = said("check")
    assert code == 1
    assert "DATAFLOW__SOURCES__A__URL: [sources.a] url: found" in told


def test_check_shows_addresses_without_secrets(tmp_path: Path, said: Callable[..., tuple[int, str]]) -> None:
    """The address is shown, with three stars in the place of what is secret."""
    file = tmp_path / "mine.toml"
    file.write_text(configuration(0, "ws://127.0.0.1:1/stream"))
    for words in (["check", str(file)], ["check", str(file), "--json"]):
        code, told = said(*words)
        assert code == 0
        assert "ws://user:***@127.0.0.1:1/stream?listenKey=***" in told


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--url", f"http://user:{PASSWORD}@127.0.0.1:1"),
        ("status", "--url", f"ftp://user:{PASSWORD}@127.0.0.1:1"),
        ("status", "--url", f"http://user:{PASSWORD}@127.0.0.1:x"),
        ("tail", "BTC-USD", "--url", f"http://user:{PASSWORD}@127.0.0.1:1"),
        ("fault", "a", "crash", f"--tokn={OPERATOR}"),
    ],
)
def test_mistakes_on_the_command_line_repeat_no_secret(
    words: tuple[str, ...], said: Callable[..., tuple[int, str]]
) -> None:
    """Addresses may hold a password, and an option may be misspelled."""
    assert said(*words)[0] == 1
