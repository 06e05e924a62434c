"""config/README.md agrees with the code: metrics, tables of the configuration, endpoints, commands, links."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import attrs
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from dataflow import cli, plugs
from dataflow.connectors import push
from dataflow.faces import admin
from dataflow.faults.registry import Kind
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import Chaos, Mode, Settings, Symbol
from simulators import Exchange, Trade, open_binance
from tests.support.memory_archive import MemoryArchive
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client


@pytest.fixture
def readme(checkout: Path) -> str:
    return (checkout / "config" / "README.md").read_text()


def rows(readme: str, heading: str) -> Iterator[list[str]]:
    """The cells of the tables with this first column."""
    for table in readme.split(f"\n| {heading} |")[1:]:
        for line in table.partition("\n\n")[0].splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cell: str) -> list[str]:
    """The words in backticks."""
    return re.findall("`([^`]+)`", cell)


def column(readme: str, heading: str) -> list[str]:
    return [name for cell, *_ in rows(readme, heading) for name in names(cell)]


def metrics(text: str) -> dict[str, set[str] | None]:
    """Every metric in a scrape, as queries name it, with its labels; None while it has no sample."""
    found: dict[str, set[str] | None] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = set(family.samples[0].labels) if family.samples else None
    return found


async def everything_happens(d: Daemon, exchange: Exchange) -> str:
    """A scrape with at least one sample of every metric: a bad message, a trade, a struck fault, a subscriber, and
    missing trades that are asked for: first without an answer, then with one that is not believed."""
    assert d.core.faults is not None
    d.core.faults.inject("sources/binance", "delay", seconds=0.001)
    exchange.fault("garbage")
    async with client(d.url) as listener, http_client(d.http) as http:
        await listener.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        for n in range(1, 1_000_000):
            if n == 3:
                for kind in ("drop", "rest_error", "rest_lie"):
                    exchange.fault(kind)  # type: ignore[arg-type]
            await exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
            text = (await http.get("/metrics")).text
            if None not in metrics(text).values():
                return text
    raise AssertionError("unreachable")


async def test_the_table_has_exactly_the_existing_metrics(readme: str) -> None:
    """Names and labels of the table are those of a scrape, in a daemon with fault injection."""
    written = {names(name)[0]: set(names(labels)) for name, labels, *_ in rows(readme, "metric")}
    async with (
        open_binance() as exchange,
        daemon(
            sources={
                **from_binance(exchange.url, "BTC-USDT", refill_url=exchange.rest_url),
                "own": push.Settings(connector="push", symbols=("AAPL",)),
            },
            archive=MemoryArchive(),
            chaos=Chaos(enabled=True),
            symbols={"BTC-USDT": Symbol(mode=Mode.FAILOVER)},
        ) as d,
    ):
        assert written == metrics(await everything_happens(d, exchange))


def test_alerts_use_existing_metrics(readme: str) -> None:
    """Every metric in an alert is in the table of metrics."""
    expressions = " ".join(expression for _alert, expression, *_ in rows(readme, "alert"))
    used = set(re.findall(r"dataflow_\w+", expressions))
    assert used
    assert used <= set(column(readme, "metric"))


def test_the_shipped_alerts_are_those_of_the_table(readme: str, checkout: Path) -> None:
    """The file has every alert of the table, with its expression and its time, and no other."""
    (group,) = yaml.safe_load((checkout / "config/alerts/dataflow.yml").read_text())["groups"]
    shipped = {}
    for rule in group["rules"]:
        name = rule["annotations"]["summary"].partition(":")[0]
        lasting = f" for {rule['for'].removesuffix('m')} m" if "for" in rule else ""
        shipped[name] = f"`{rule['expr']}`{lasting}"
        assert rule["alert"] == "Dataflow" + name.title().replace(" ", "")
        assert rule["labels"]["severity"] in ("warning", "critical")
    assert shipped == {alert: expression for alert, expression, *_ in rows(readme, "alert")}


def test_the_dashboard_uses_existing_metrics_and_their_labels(readme: str, checkout: Path) -> None:
    """Every metric of a panel is in the table of metrics, and so is every label that a legend or a query names."""
    written = {
        names(name)[0]: {*names(labels), "instance", "le"} for name, labels, *_ in rows(readme, "metric")
    }
    dashboard = json.loads((checkout / "config/grafana/dataflow.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(targets) > 20
    for target in targets:
        found = re.findall(r"\b((?:dataflow|process)_\w+)\{([^}]*)\}", target["expr"])
        assert found, target["expr"]
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for name, matchers in found:
            known = written[name.removesuffix("_bucket")]
            assert labels | set(re.findall(r"(\w+)[=!]", matchers)) <= known, target
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_table_of_the_configuration_is_named(readme: str) -> None:
    """One row for each table, in any order."""
    tables = [re.sub(r"[\[\]]|\.NAME", "", name) for name, _content in rows(readme, "table")]
    assert sorted(name.strip("`") for name in tables) == sorted(a.name for a in attrs.fields(Settings))


def test_every_face_is_named(readme: str) -> None:
    """The paragraph on `[faces.NAME]` names each face."""
    (paragraph,) = [each for each in readme.split("\n\n") if each.startswith("`[faces.NAME]`")]
    assert set(plugs.names("faces")) <= set(names(paragraph))


REST = {"clients/ID": "clients/<int:id>", "sources/NAME/problems": "sources/<name>/problems"}


def test_every_endpoint_of_the_admin_face_is_named(readme: str) -> None:
    """The table has the methods and paths of the face."""
    face = admin.Face(admin.Settings())
    routes = face.routes(cast(Hall, None))
    existing = {(method, route.path) for route in routes for method in route.methods}
    written = {tuple(each.split(" ")) for each in column(readme, "request")}
    paths = {"/actors/PATH": "/actors/<path:path>", "/faults/ID": "/faults/<int:id>"}
    paths |= {f"/api/v1/{kind}": f"/api/v1/{rule}" for kind, rule in REST.items()}
    paths["/actors/PATH/restart"] = "/actors/<path:path>/restart"
    assert {(method, paths.get(path, path)) for method, path in written} == existing


def test_every_kind_of_fault_is_named(readme: str) -> None:
    """The table of kinds is that of the registry."""
    assert column(readme, "kind") == [kind.value for kind in Kind]


def commands(readme: str) -> list[list[str]]:
    """The words behind `dataflow` in all shell examples."""
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", readme, re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in shell.splitlines()]
    whole = [line[line.index("dataflow") + 1 :] for line in lines if "dataflow" in line]
    return [words[: words.index(">")] if ">" in words else words for words in whole]


def test_the_commands_can_be_typed(readme: str) -> None:
    """Every command of the examples exists with these options."""
    assert commands(readme)
    for words in commands(readme):
        cli.app().parse_args(words, exit_on_error=False, print_error=False)


async def test_the_answer_of_ready_is_as_written(readme: str) -> None:
    """The example has the keys of a real answer."""
    (example,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    async with daemon(sources={}) as d, http_client(d.http) as http:
        assert list(json.loads(example)) == list((await http.get("/ready")).json())


def test_links_lead_somewhere(readme: str, checkout: Path) -> None:
    """Files exist, and anchors are headings of the README."""
    anchors = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
        for h in re.findall("^#+ (.*)", readme, re.M)
    }
    links = re.findall(r"\]\((?!http)([^)]+)\)", readme)
    assert links
    for link in links:
        assert (
            link[1:] in anchors
            if link.startswith("#")
            else (checkout / "config" / link.partition("#")[0]).exists()
        ), link
