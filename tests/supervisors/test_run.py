"""`run()`: rule 21, each test in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisors import Child, Context, Supervisor, run, say_at_once

ROOT = Path(__file__).parents[2]

PROGRAM = """
import select, signal, sys, threading, time, trio, trio.testing
from supervisors import Backoff, Child, Limit, Supervisor, run, runner

runner.LAST_RESORT = 1000  # on a busy machine the alarm could overtake the thread that reports
begun = threading.Event()  # what has to be ended by force

class Patient:
    def select(self, *arguments):
        begun.wait()  # on a busy machine the deadline could overtake what it has to end
        return select.select(*arguments)

if float(sys.argv[3]) < 1000:
    runner.select = Patient()

class Actor:
    async def run(self, ctx):
        if LIFE == "starts slowly":
            print("up", flush=True)
            await trio.sleep_forever()
        if LIFE == "never starts":
            raise OSError("no start")
        ctx.ready()
        await trio.sleep(0)
        if LIFE in ("obeys", "dawdles", "shields"):
            await trio.testing.wait_all_tasks_blocked()  # the whole tree runs
        print("up", flush=True)
        if LIFE == "exits":
            raise SystemExit(7)
        if LIFE == "interrupts":
            raise KeyboardInterrupt
        if LIFE == "crashes":
            raise ValueError("crash")
        if LIFE == "spins":
            the_guilty_loop()
        if LIFE == "sleeps in C":
            begun.set()
            time.sleep(1000)
        if LIFE in ("shields", "crashes beside a shield"):
            await the_shielded_wait()
        try:
            await ctx.stopping.wait()
            print("asked", flush=True)
            if LIFE == "dawdles":
                await trio.sleep_forever()
        finally:
            print("cleaned up", flush=True)

def the_guilty_loop():
    begun.set()
    while True:
        pass

async def the_shielded_wait():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

class Crasher:
    async def run(self, ctx):
        ctx.ready()
        raise ValueError("crash")

LIFE = sys.argv[1]
children = [Child("actor", Actor, backoff=Backoff(first=0), stop_within=float(sys.argv[2]), cleanup_within=0)]
if LIFE == "crashes beside a shield":
    children.append(Child("crasher", Crasher, backoff=Backoff(first=0)))
sup = Supervisor(children, limit=Limit(0))
if LIFE != "crashes beside a shield":
    sup = Supervisor([Child("sub", lambda: Supervisor(children))], limit=Limit(0))
def told(root):
    print("told", root.tree().state, flush=True)

def fails(root):
    raise ValueError("a defect of a handler")

def hook(event):
    if event.kind == "unstopped":
        begun.set()

signals = {signal.SIGHUP: told, signal.SIGUSR1: fails}
code = run(sup, deadline=float(sys.argv[3]), on_event=hook, signals=signals)
print("returned", code, flush=True)
sys.exit(code)
"""


@contextmanager
def process(
    life: str, stop_within: float = 1000, deadline: float = 1000, program: str = PROGRAM
) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, life, str(stop_within), str(deadline)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as running:
        try:
            yield running
        finally:
            running.kill()


def up(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"


def ends(running: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = running.communicate(timeout=120)
    return running.returncode, out.splitlines(), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_tree_politely(number: signal.Signals) -> None:
    """21: exit code 0 after a clean signal, and nothing on standard error."""
    with process("obeys") as running:
        up(running)
        running.send_signal(number)
        assert ends(running) == (0, ["asked", "cleaned up", "returned 0"], "")


def test_a_signal_during_the_start_ends_it() -> None:
    """21 and 19: a child that is still starting is cancelled at once; no error."""
    with process("starts slowly") as running:
        up(running)
        running.send_signal(signal.SIGTERM)
        assert ends(running) == (0, ["returned 0"], "")


def test_the_second_signal_cancels() -> None:
    """21: a user who presses Ctrl-C twice does not want to wait. Cleanup still runs. The code is 128 + the signal."""
    with process("dawdles") as running:
        up(running)
        running.send_signal(signal.SIGTERM)
        assert running.stdout is not None
        assert running.stdout.readline() == "asked\n"
        running.send_signal(signal.SIGINT)
        assert ends(running) == (130, ["cleaned up", "returned 130"], "")


def _finishing(how: str) -> str:
    return PROGRAM.replace("code = run(sup,", f"code = run(sup, finish=lambda: {how},")


@pytest.mark.parametrize(("life", "code"), [("obeys", 0), ("crashes", 1)])
def test_what_is_left_to_do_is_done_when_the_tree_has_ended(life: str, code: int) -> None:
    """However it has ended."""
    program = _finishing('print("finished", flush=True)')
    if life == "crashes":
        program = program.replace('Child("actor", Actor,', 'Child("actor", Crasher,')
    with process(life, program=program) as running:
        if life == "obeys":
            up(running)
            running.send_signal(signal.SIGTERM)
        ended, out, _err = ends(running)
    assert (ended, out[-2:]) == (code, ["finished", f"returned {code}"])


def test_the_deadline_holds_for_what_is_left_to_do() -> None:
    """The two have one deadline together."""
    with process("obeys", deadline=0.5, program=_finishing("(begun.set(), time.sleep(1000))")) as running:
        up(running)
        running.send_signal(signal.SIGTERM)
        code, out, err = ends(running)
    assert (code, out) == (124, ["asked", "cleaned up"])
    assert "time.sleep" in err or "lambda" in err


def test_another_signal_is_handed_to_its_handler_and_ends_nothing() -> None:
    """The handler gets the handle of the root, any number of times, and its defects harm nobody."""
    with process("obeys") as running:
        up(running)
        assert running.stdout is not None
        for _ in range(2):
            running.send_signal(signal.SIGUSR1)
            running.send_signal(signal.SIGHUP)
            assert running.stdout.readline() == "told running\n"
        running.send_signal(signal.SIGTERM)
        code, out, err = ends(running)
        assert (code, out) == (0, ["asked", "cleaned up", "returned 0"])
        assert "a defect of a handler" in err


def test_a_signal_before_the_loop_runs_is_not_forgotten() -> None:
    """Its handler is called once the tree is there."""
    early = PROGRAM.replace("code = run(", "runner.Tree = raising(runner.Tree)\ncode = run(").replace(
        "LIFE = sys.argv[1]",
        "LIFE = sys.argv[1]\n"
        "def raising(make):\n"
        "    return lambda *args: (signal.raise_signal(signal.SIGHUP), make(*args))[1]\n",
    )
    with process("obeys", program=early) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "told idle\n"
        up(running)
        running.send_signal(signal.SIGTERM)
        assert ends(running)[0] == 0


@pytest.mark.parametrize(("life", "guilty"), [("spins", "the_guilty_loop"), ("sleeps in C", "in run")])
def test_an_actor_that_blocks_the_loop_does_not_outlive_the_deadline(life: str, guilty: str) -> None:
    """21: the code is neither 0 nor 1, and the stack of the loop's thread is written."""
    with process(life, deadline=0.2) as running:
        up(running)
        running.send_signal(signal.SIGTERM)
        code, out, err = ends(running)
        assert (code, out) == (124, [])
        assert guilty in err


def test_an_actor_that_shields_for_ever_does_not_outlive_the_deadline() -> None:
    """21: the task stacks of Trio show it, by its path; faulthandler would show only the loop."""
    with process("shields", stop_within=0, deadline=0.2) as running:
        up(running)
        running.send_signal(signal.SIGINT)
        code, _, err = ends(running)
        assert code == 124
        assert "child 'sub/actor' (stopping)" in err
        assert "the_shielded_wait" in err


def test_the_deadline_holds_after_an_escalation_too() -> None:
    """21: a tree that has given up but cannot end is ended too."""
    with process("crashes beside a shield", stop_within=0, deadline=0.2) as running:
        code, _, err = ends(running)
        assert code == 124
        assert "the_shielded_wait" in err


def test_the_deadline_holds_although_nobody_reads_standard_error() -> None:
    """21: the guilty stacks are given up rather than waited for. The code is that of the deadline."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b".")
    except BlockingIOError:
        os.set_blocking(writer, True)
    command = [sys.executable, "-c", PROGRAM, "spins", "1000", "0.2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=writer, text=True, env=environment) as running:
        try:
            up(running)
            running.send_signal(signal.SIGTERM)
            assert running.wait(120) == 124
        finally:
            running.kill()
            os.close(reader)
            os.close(writer)


def test_last_words_are_cut_where_the_room_ends() -> None:
    """`say_at_once` writes what finds room now, and says whether that was all."""
    reader, writer = os.pipe()
    assert say_at_once("short", writer)
    assert os.read(reader, 100) == b"short"
    assert not say_at_once("x" * (1 << 20), writer)
    assert len(os.read(reader, 1 << 20)) >= 4096
    os.close(reader)
    assert not say_at_once("gone", writer)
    os.close(writer)
    assert not say_at_once("closed", writer)


def test_an_escalation_is_1_and_tells_why() -> None:
    """21: with the traceback of the failure."""
    with process("crashes") as running:
        code, out, err = ends(running)
        assert (code, out[-1]) == (1, "returned 1")
        assert "RestartLimitReached" in err
        assert "ValueError: crash" in err


def test_a_failed_start_is_1() -> None:
    """21: with StartFailed and the original error."""
    with process("never starts") as running:
        code, out, err = ends(running)
        assert (code, out) == (1, ["returned 1"])
        assert "StartFailed" in err
        assert "OSError: no start" in err


def test_system_exit_keeps_its_code() -> None:
    """37: the actor is not restarted, and the error is not swallowed."""
    with process("exits") as running:
        assert ends(running) == (7, ["up"], "")


def test_keyboard_interrupt_out_of_an_actor_is_raised() -> None:
    """37: as without supervision."""
    with process("interrupts") as running:
        code, out, err = ends(running)
        assert out == ["up"]
        assert code in (1, 130, -signal.SIGINT)
        assert "KeyboardInterrupt" in err


def test_signals_are_given_back() -> None:
    """`run` restores the process: signal handlers, threads, alarm."""
    import threading

    from supervisors import Child, Supervisor, run
    from tests.supervisors.helpers import Scripted

    async def life(ctx: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ctx.ready()  # type: ignore[attr-defined]
        await ctx.receive()  # type: ignore[attr-defined]

    def numbers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]

    before, threads = numbers(), set(threading.enumerate())
    assert run(Supervisor([Child("a", lambda: Scripted(life))])) == 0
    assert numbers() == before
    assert set(threading.enumerate()) <= threads  # idle ones of earlier tests may end meanwhile
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_stop_does_not_read_the_state_of_actors_through_their_repr() -> None:
    """A stop takes no longer when actors hold much: nothing of the tree writes out what it holds."""

    class Holder:
        shown = 0

        def __repr__(self) -> str:
            type(self).shown += 1
            return "all that it holds"

        def make(self) -> Holder:
            return self

        async def run(self, ctx: Context) -> None:
            ctx.ready()
            signal.raise_signal(signal.SIGTERM)
            await ctx.stopping.wait()

    holder = Holder()
    assert run(Supervisor([Child("holder", holder.make)]), signals={signal.SIGHUP: print}) == 0
    assert Holder.shown == 0
