"""A program that writes until it is killed: `python -m tests.dataflow.stores.writing FOLDER`.

Prints the last place of each batch when `append` has returned. A day has some twenty batches.
"""

from __future__ import annotations

import itertools
import os
import sys

from dataflow.cache.archive import Batch, Checkpoint
from dataflow.settings.schema import History
from dataflow.stores.sqlite import Store

from .shelf import DAY, NOON, run

SYMBOL = "BTC-USD"


def main(folder: str) -> None:
    now = NOON
    store = Store(History(directory=folder), lambda: now)
    contents = store.open()
    store.begin(contents.epoch + 1)
    last = contents.streams[SYMBOL].last if SYMBOL in contents.streams else 0
    now += last // 2_000 * DAY
    for count in itertools.count():
        size = 1 + count * 37 % 200
        point = Checkpoint("days", SYMBOL, last + size, b"")
        store.append(Batch([run(last + 1, last + size)], (), [point]))
        last += size
        now += DAY // 20
        os.write(1, b"%d\n" % last)


if __name__ == "__main__":
    main(sys.argv[1])
