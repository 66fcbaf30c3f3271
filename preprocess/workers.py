"""A pool of processes for a stream of large items, with the results in order.

Each worker holds one item at a time, over its own pipe. Nothing is read ahead without bound, a
pipe is never written from both ends at once, and a killed worker ends the stream instead of
stalling it: concurrent.futures up to Python 3.11.4 hangs there, multiprocessing.Pool always does.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from failures import Failure

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    items: Iterable[Item], make: Callable[[], Callable[[Item], Result]], count: int
) -> Iterator[Result]:
    """make()(item) for each item. `make` is called once in each of `count` processes."""
    if count == 1:
        yield from map(make(), items)
        return
    idle: deque[_Worker[Item, Result]] = deque()
    busy: deque[_Worker[Item, Result]] = deque()
    try:
        for item in items:
            if len(idle) + len(busy) < count:
                idle.append(_Worker(make))
            elif not idle:
                yield busy[0].receive()
                idle.append(busy.popleft())
            idle[0].send(item)
            busy.append(idle.popleft())
        while busy:
            yield busy[0].receive()
            idle.append(busy.popleft())
    finally:
        for worker in (*idle, *busy):
            worker.stop()


class _Worker(Generic[Item, Result]):
    def __init__(self, make: Callable[[], Callable[[Item], Result]]) -> None:
        context = get_context("spawn")  # a fork would copy the tokenizer's threads half-way
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def send(self, item: Item) -> None:
        try:
            self._pipe.send(item)
        except OSError:
            raise self._lost() from None

    def receive(self) -> Result:
        try:
            result = self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if isinstance(result, Exception):
            raise result
        return result

    def _lost(self) -> Failure:
        self._process.join(timeout=5)
        return Failure(
            f"a worker ended (exit code {self._process.exitcode}), perhaps killed for memory; "
            "fewer --workers need less"
        )

    def stop(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, make: Callable[[], Callable]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    work: Callable | None = None
    while True:
        try:
            item = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            work = work or make()
            result = work(item)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            result = error
        pipe.send(result)
