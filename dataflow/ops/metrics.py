"""`/metrics`: figures in Prometheus' text format, collected at each scrape.

Rules of this file: nothing is counted here. Actors and state have counters of their own, and a scrape reads
them, so metrics cost nothing per trade. config/README.md lists every metric, and a test compares the two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dataflow import logs
from dataflow.core import Core
from dataflow.domain.symbols import ANY
from dataflow.figures import Histogram
from dataflow.gateway.lobby import Lobby
from dataflow.net.websocket import deflate
from dataflow.server.connection import FloodError, StalledError
from dataflow.sources.state import LinkState
from dataflow.sources.vitals import Remedy
from dataflow.topics.days import REASONS
from supervisors import Node

from .readiness import static_nodes


def exposition(core: Core, lobby: Lobby, tree: Node) -> bytes:
    """All metrics as Prometheus text. Of `tree`, only the static actors."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Now(core, lobby, tree))
    ProcessCollector(registry=registry)  # what the operating system says; nothing where it is not Linux
    return generate_latest(registry)


class _Now(Collector):
    def __init__(self, core: Core, lobby: Lobby, tree: Node) -> None:
        self._core = core
        self._lobby = lobby
        self._tree = tree

    def collect(self) -> Iterator[Metric]:
        yield from self._source_metrics()
        yield from self._symbol_metrics()
        yield from self._refill_metrics()
        yield from self._cache_metrics()
        yield from self._history_metrics()
        yield from self._topic_metrics()
        yield from self._client_metrics()
        yield from self._outbox_metrics()
        yield from self._loop_metrics()
        yield from self._admission_metrics()
        yield from self._connection_metrics()
        yield from self._actor_metrics()
        yield from self._fault_metrics()
        yield from self._event_metrics()
        yield CounterMetricFamily(
            "dataflow_log_dropped_lines", "Lines of the log that found no room", value=logs.dropped()
        )

    def _event_metrics(self) -> Iterator[Metric]:
        events, book = self._core.events, self._lobby.clients.guestbook
        told = {kind.value: count for kind, count in events.told.items()}
        yield _labelled(CounterMetricFamily, "events", "What happened, by kind", "kind", told)
        for name, text, value in (
            ("events_forgotten", "Events that found no room among the newest", events.forgotten),
            ("log_clients_untold", "Lines about clients that were only counted in the log", book.untold),
        ):
            yield CounterMetricFamily(f"dataflow_{name}", text, value=value)

    def _source_metrics(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily(
            "dataflow_source_connected", "1 while the source is connected", labels=["source"]
        )
        problems = CounterMetricFamily(
            "dataflow_source_problems",
            "Unusable messages of a source, by reason",
            labels=["source", "reason"],
        )
        overflowed = CounterMetricFamily(
            "dataflow_source_overflowed_trades", "Trades refused by a full shard mailbox", labels=["source"]
        )
        trades = CounterMetricFamily("dataflow_source_trades", "Trades that a source sent", labels=["source"])
        batches = CounterMetricFamily(
            "dataflow_source_batches", "Reads of a source that brought trades", labels=["source"]
        )
        received = CounterMetricFamily("dataflow_source_bytes", "Bytes read from a source", labels=["source"])
        silent = GaugeMetricFamily(
            "dataflow_source_silent_seconds", "Seconds since the newest trade of a source", labels=["source"]
        )
        opened = CounterMetricFamily(
            "dataflow_source_circuit_opened",
            "How often several attempts to connect in a row have failed, or the one after them",
            labels=["source"],
        )
        renumbered = CounterMetricFamily(
            "dataflow_source_renumbered", "How often a source has numbered a symbol anew", labels=["source"]
        )
        producers = GaugeMetricFamily(
            "dataflow_source_producers",
            "Producers that are there, of sources that wait for them",
            labels=["source"],
        )
        lines = GaugeMetricFamily(
            "dataflow_source_lines", "Connections to a source, by state", labels=["source", "state"]
        )
        for name, source in self._core.sources.items():
            if source.listens:
                producers.add_metric([name], source.producers)
            else:
                links = Counter(line.link for line in source.lines.values())
                for state in LinkState:
                    lines.add_metric([name, state.value], links[state])
            opened.add_metric([name], source.breaker.opened)
            renumbered.add_metric([name], source.renumbered)
            trades.add_metric([name], source.delivered.trades)
            batches.add_metric([name], source.delivered.batches)
            received.add_metric([name], source.delivered.bytes)
            if (silent_for := source.silent_for) is not None:
                silent.add_metric([name], silent_for)
            connected.add_metric([name], float(source.link is LinkState.CONNECTED))
            overflowed.add_metric([name], self._core.delivery.overflowed[name])
            for reason, count in source.problems.items():
                problems.add_metric([name, reason], count)
        yield from (
            connected,
            lines,
            opened,
            producers,
            renumbered,
            trades,
            batches,
            received,
            silent,
            problems,
            overflowed,
        )
        yield from self._failover_metrics()

    def _failover_metrics(self) -> Iterator[Metric]:
        """Of each source, too; `/api/v1/symbols/SYMBOL` has those of a symbol."""
        told = "Trades of sources that stood by, and that are no part of a stream"
        left_out = {name: self._core.delivery.left_out[name] for name in self._core.sources}
        yield _labelled(CounterMetricFamily, "source_standby_trades", told, "source", left_out)
        active = GaugeMetricFamily(
            "dataflow_source_active_symbols",
            "Symbols that are of one source at a time, and of this one now",
            labels=["source"],
        )
        lowest = GaugeMetricFamily(
            "dataflow_source_lowest_score",
            "How a source fares with such symbols, 0 to 100: the worst of them",
            labels=["source"],
        )
        standings = self._core.board.standings.values()
        scores: dict[str, int] = {}
        for standing in standings:
            for name, health in standing.healths.items():
                scores[name] = min(health.score, scores.get(name, health.score))
        counts = Counter(standing.active for standing in standings)
        for name in self._core.sources:
            active.add_metric([name], counts[name])
            if name in scores:
                lowest.add_metric([name], scores[name])
        told = "Switches of streams to another source"
        switches = CounterMetricFamily("dataflow_stream_switches", told, value=self._core.board.switches)
        yield from (active, lowest, switches)

    def _symbol_metrics(self) -> Iterator[Metric]:
        """Of each source, not of each symbol: there may be thousands."""
        symbols = GaugeMetricFamily(
            "dataflow_source_symbols", "Symbols of a source, by state", labels=["source", "state"]
        )
        lag = GaugeMetricFamily(
            "dataflow_source_lag_seconds",
            "From a trade to its arrival: the middle one of all symbols",
            labels=["source"],
        )
        missing = GaugeMetricFamily(
            "dataflow_source_missing_places", "Places in memory that are gaps now", labels=["source"]
        )
        asked = CounterMetricFamily(
            "dataflow_lookout_questions",
            "Questions about silent symbols",
            labels=["source"],
        )
        failed = CounterMetricFamily(
            "dataflow_lookout_failures", "Those without a good answer", labels=["source"]
        )
        stalls = CounterMetricFamily("dataflow_lookout_stalls", "Stalls that were proven", labels=["source"])
        remedies = CounterMetricFamily(
            "dataflow_lookout_remedies", "What was done about silent symbols", labels=["source", "remedy"]
        )
        states = self._core.symbols_by_state()
        for name, source in self._core.sources.items():
            for state, named in states.get(name, {}).items():
                symbols.add_metric([name, state.value], len(named))
            vitals = source.vitals
            if (seconds := vitals.lag) is not None:
                lag.add_metric([name], seconds)
            missing.add_metric([name], vitals.missing)
            asked.add_metric([name], vitals.asked)
            stalls.add_metric([name], vitals.stalls)
            failed.add_metric([name], vitals.failed.total())
            for remedy in Remedy:
                remedies.add_metric([name, remedy.value], vitals.remedies[remedy.value])
        yield from (symbols, lag, missing, asked, failed, stalls, remedies)

    def _refill_metrics(self) -> Iterator[Metric]:
        """Of sources that are asked for missing trades."""
        of_source, by_reason = ["source"], ["source", "reason"]
        counter, named = CounterMetricFamily, "dataflow_refill_"
        asked = counter(f"{named}questions", "Requests for missing trades", labels=of_source)
        failed = counter(f"{named}failures", "Those without an answer, by reason", labels=by_reason)
        refused = counter(f"{named}refused", "Answers that were not believed, by reason", labels=by_reason)
        filled = counter(f"{named}trades", "Missing trades that came", labels=of_source)
        told = counter(f"{named}told_gaps", "Gaps told because the answer took too long", labels=of_source)
        given_up = counter(f"{named}given_up", "Questions whose trades stay missing", labels=of_source)
        missing = GaugeMetricFamily(
            f"{named}missing_trades", "Trades that are asked for now", labels=of_source
        )
        seconds = HistogramMetricFamily(f"{named}seconds", "From a loss until all has come", labels=of_source)
        for name in self._core.sources:
            if not self._core.is_asked(name):
                continue
            refills = self._core.refills(name)
            asked.add_metric([name], refills.asked)
            filled.add_metric([name], refills.filled)
            told.add_metric([name], refills.told)
            given_up.add_metric([name], refills.given_up + refills.pushed_out)
            missing.add_metric([name], refills.missing_now)
            seconds.add_metric([name], _buckets(refills.seconds), refills.seconds.total)
            for reason, count in refills.failed.items():
                failed.add_metric([name, reason], count)
            for reason, count in refills.refused.items():
                refused.add_metric([name, reason], count)
        yield from (asked, failed, refused, filled, told, given_up, missing, seconds)

    def _cache_metrics(self) -> Iterator[Metric]:
        judged = CounterMetricFamily(
            "dataflow_trades",
            "Trades that reached a shard, by verdict",
            labels=["source", "verdict"],
        )
        # Summed over the shards: the symbols of a source lie in several, but a series may appear only once.
        counts = sum((store.counts for store in self._core.stores), Counter[tuple[str, str]]())
        for (source, verdict), count in counts.items():
            judged.add_metric([source, verdict], count)
        left_out = dict.fromkeys(REASONS, 0) | dict(self._core.days.left_out)
        yield judged
        waiting = sum(store.waiting for store in self._core.stores)
        told = "Trades that wait for missing ones, which are being asked for"
        yield GaugeMetricFamily("dataflow_held_trades", told, value=waiting)
        told = "Losses for which trades have waited, by how that ended"
        ended = CounterMetricFamily("dataflow_holds", told, labels=["source", "end"])
        ends = sum((store.holds.ended for store in self._core.stores), Counter[tuple[str, str]]())
        for (source, end), count in ends.items():
            ended.add_metric([source, end], count)
        yield ended
        told = "Places that do not count in an aggregate of the day, by reason"
        yield _labelled(CounterMetricFamily, "days_left_out_places", told, "reason", left_out)
        candles = self._core.candles
        told = "Trades that came too late for a bar, by its interval"
        yield _labelled(CounterMetricFamily, "bars_too_late", told, "interval", candles.too_late)
        told = "Trades in no bar: they are dated more than an hour ahead of this machine's clock"
        yield CounterMetricFamily("dataflow_bars_in_future", told, value=candles.in_future)

    def _history_metrics(self) -> Iterator[Metric]:
        recording, now = self._core.recording, trio.current_time()
        if recording.archive is None:
            return
        totals, since = recording.totals, recording.writing_since
        for name, text, value in (
            ("behind_seconds", "Age of the oldest place that is not on disk", recording.behind(now)),
            ("write_seconds", "For how long the present write lasts", 0.0 if since is None else now - since),
            ("failing", "1 while nothing can be written", float(recording.trouble is not None)),
            ("damaged", "Parts of the store that are damaged, as far as they were met", recording.damaged),
        ):
            yield GaugeMetricFamily(f"dataflow_history_{name}", text, value=value)
        for name, text, value in (
            ("commits", "Batches that were written", totals.commits),
            ("entries", "Trades and gaps that were written", totals.entries),
            ("bytes", "Their bytes, before compression", totals.bytes),
            ("errors", "Writes that failed, and are tried again", totals.errors),
            ("unrecorded", "Places that memory forgot before they were written", totals.unrecorded),
            ("bars_refused", "Bars that found no room to wait for a write", totals.bars_refused),
        ):
            yield CounterMetricFamily(f"dataflow_history_{name}", text, value=value)

    def _topic_metrics(self) -> Iterator[Metric]:
        offered = [channel.name for channel in self._core.channels.values() if channel.offered]
        topics, subscriptions = Counter(dict.fromkeys(offered, 0)), Counter(dict.fromkeys(offered, 0))
        for topic, subscribers in self._core.topics.subscribers.items():
            topics[topic.channel] += 1
            subscriptions[topic.channel] += subscribers
        told = "Subscriptions of all clients"
        yield _labelled(GaugeMetricFamily, "topics", "Topics that are open", "channel", topics)
        yield _labelled(GaugeMetricFamily, "subscriptions", told, "channel", subscriptions)

    def _client_metrics(self) -> Iterator[Metric]:
        totals = self._lobby.clients.totals()
        yield GaugeMetricFamily("dataflow_sessions", "Clients connected", value=len(self._lobby.clients))
        downloads = "Answers of CSV and NDJSON that are under way"
        yield GaugeMetricFamily("dataflow_downloads", downloads, value=self._lobby.quotas.downloads)
        for name, text, value in (
            ("sessions_opened", "Clients that connected", totals.opened),
            ("sessions_slow", "Clients disconnected because they were too slow", totals.slow),
            ("updates_sent", "Updates for clients, including those that were dropped later", totals.sent),
            ("updates_dropped", "Updates dropped for slow clients, announced as gaps", totals.dropped),
            (
                "switches_untold",
                "Switches that clients were not told of, because too many waited",
                self._lobby.clients.switches_untold,
            ),
            (
                "fills_forgotten",
                "Fills that memory forgot before clients were told",
                self._core.topics.forgotten_fills,
            ),
        ):
            yield CounterMetricFamily(f"dataflow_{name}", text, value=value)
        ended = {why.value: count for why, count in totals.ended.items()}
        subscribers: Counter[str] = Counter()
        for topic, count in self._core.topics.subscribers.items():
            # Clients can wait for symbols that do not exist. They must not fill a time series database.
            known = topic.symbol in self._core.carriers or topic.symbol == ANY
            subscribers[str(topic) if known else "unknown"] += count
        yield _labelled(
            CounterMetricFamily, "sessions_ended", "Clients that left, by the reason", "reason", ended
        )
        yield _labelled(
            GaugeMetricFamily, "topic_subscribers", "Subscribers of a topic", "symbol", subscribers
        )

    def _outbox_metrics(self) -> Iterator[Metric]:
        backlog = self._lobby.clients.backlog()
        age = 0.0 if backlog is None else trio.current_time() - backlog.since
        for name, text, value in (
            ("messages", "Messages that wait for clients", 0 if backlog is None else backlog.messages),
            ("bytes", "Bytes that wait for clients", 0 if backlog is None else backlog.bytes),
            ("oldest_seconds", "Age of the oldest message that a client has not taken", age),
        ):
            yield GaugeMetricFamily(f"dataflow_outbox_{name}", text, value=value)

    def _loop_metrics(self) -> Iterator[Metric]:
        lag = self._core.lag
        yield _histogram(
            "dataflow_fanout_latency_seconds",
            "From the admission of the oldest trade of a pass until all sockets have been served",
            self._core.latency,
        )
        yield _histogram("dataflow_loop_lag_seconds", "How late the event loop wakes a timer", lag.histogram)
        yield GaugeMetricFamily(
            "dataflow_loop_lag_recent_max_seconds",
            "The longest lag of the last 30 to 60 s",
            value=lag.recent.value(trio.current_time()),
        )

    def _connection_metrics(self) -> Iterator[Metric]:
        lobby, stats = self._lobby, self._lobby.stats
        closed = "Connections without a request that were closed for others, by reason"
        failed = "Errors that ended connections or requests, contained, by their kind"
        kinds = {FloodError.__name__, StalledError.__name__, *stats.faults}
        faults = {kind: stats.faults[kind] for kind in kinds}
        held = "HTTP connections"
        before, after = deflate.totals()
        compressed = "Bytes of payloads for WebSocket clients that were compressed, each once for all clients"
        sent_away = "Connections answered 503, because every other had a request in hand"
        counter, refused = CounterMetricFamily, lobby.quotas.refused
        yield from (
            _labelled(counter, "limits_refused", "Refusals by [limits]", "what", refused),
            _labelled(counter, "connections_dismissed", closed, "reason", stats.dismissed),
            _labelled(counter, "connections_failed", failed, "error", faults),
            _labelled(counter, "deflate_bytes", compressed, "side", {"before": before, "after": after}),
            GaugeMetricFamily("dataflow_connections", held, value=stats.connections),
            CounterMetricFamily("dataflow_connections_sent_away", sent_away, value=stats.sent_away),
        )

    def _admission_metrics(self) -> Iterator[Metric]:
        admission = self._lobby.admission
        refused = "Clients that were refused and told to retry later, by reason"
        waiting = "Clients that wait for their first answer, by kind"
        admitted = "Clients that got their first answer"
        longest = "Longest wait for a first answer since the start"
        yield from (
            _labelled(CounterMetricFamily, "sessions_refused", refused, "reason", admission.refused),
            _labelled(GaugeMetricFamily, "admission_waiting", waiting, "kind", admission.waiting),
            CounterMetricFamily("dataflow_admission_admitted", admitted, value=admission.admitted),
            GaugeMetricFamily(
                "dataflow_admission_longest_wait_seconds", longest, value=admission.longest_wait
            ),
        )

    def _actor_metrics(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily(
            "dataflow_actor_restarts", "Restarts of a static actor", labels=["path"]
        )
        running = GaugeMetricFamily("dataflow_actor_running", "1 while the actor runs", labels=["path"])
        queued = GaugeMetricFamily(
            "dataflow_mailbox_queued", "Messages waiting for an actor", labels=["path"]
        )
        dropped = CounterMetricFamily(
            "dataflow_mailbox_dropped", "Messages that a full mailbox dropped", labels=["path"]
        )
        lost = CounterMetricFamily(
            "dataflow_mailbox_lost_in_flight", "Messages in an actor's hand when it crashed", labels=["path"]
        )
        for node in static_nodes(self._tree):
            restarts.add_metric([node.path], node.restarts)
            running.add_metric([node.path], float(node.state == "running"))
            if node.kind == "actor" and node.mailbox is not None:
                queued.add_metric([node.path], node.mailbox.queued)
                dropped.add_metric([node.path], sum(node.mailbox.dropped.values()))
                lost.add_metric([node.path], node.mailbox.lost_in_flight)
        yield from (restarts, running, queued, dropped, lost)

    def _fault_metrics(self) -> Iterator[Metric]:
        if self._core.faults is None:
            return
        struck = CounterMetricFamily(
            "dataflow_faults_struck",
            "Strikes of injected faults",
            labels=["path", "kind"],
        )
        for (path, kind), count in self._core.faults.struck.items():
            struck.add_metric([path, kind], count)
        in_force = len(self._core.faults.active())
        yield from (struck, GaugeMetricFamily("dataflow_faults_active", "Faults in force", value=in_force))


def _labelled(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    counts: Mapping[str, int],
) -> Metric:
    """A family with one label: each of `counts` is a series."""
    family = kind(f"dataflow_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, kept: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=_buckets(kept), sum_value=kept.total)


def _buckets(kept: Histogram) -> list[tuple[str, int]]:
    return [("+Inf" if bound == math.inf else str(bound), count) for bound, count in kept.cumulative()]
