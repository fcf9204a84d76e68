"""Single flight: callers of one process that miss the same key read the database once.

A flight may be joined only until it begins to read.  One that reads already can have seen rows
from before a commit that its caller knows of, so that caller would be served an old value.  So
for each key one flight reads, one waits, and whoever comes joins the one that waits.

What a flight has read is handed to those who joined it as bytes, and only if it was proven to be
no older than the flight; else each of them reads for itself.  (The leader may be in a transaction
that has written, or that is older than the flight.)

Nobody waits for ever: after `patience` seconds a caller reads for itself.  A caller that is
within a flight (its loader fetches another key) never waits, so that two of them can't wait for
each other.
"""
from __future__ import annotations

import asyncio
import contextvars
import threading

_flying = contextvars.ContextVar("pg_uncache_flying", default=False)


class Flight:
    def __init__(self, landed):
        self.landed = landed  # an Event, of threading or asyncio
        self.outcome = None   # set before it, where others may have it


class Line:
    """The flights of a key: the one that reads, the one that waits for it or None."""

    def __init__(self, flight):
        self.reads, self.waits = flight, None


class _Board:
    """The lines of all keys.  Its methods are short, and called under the lock."""

    def __init__(self):
        self.lines = {}

    def enter(self, key, make_event):
        """(flight to lead, flight ahead of it or None, None), or (None, None, one to join)."""
        line = self.lines.get(key)
        if line is None:
            flight = Flight(make_event())
            self.lines[key] = Line(flight)
            return flight, None, None
        if line.waits is not None:
            return None, None, line.waits
        line.waits = Flight(make_event())
        return line.waits, line.reads, None

    def begin(self, key, flight):
        """From now on nobody may join it."""
        line = self.lines.get(key)
        if line is None:
            self.lines[key] = Line(flight)
        elif line.waits is flight:
            line.reads, line.waits = flight, None

    def end(self, key, flight):
        line = self.lines.get(key)
        if line is not None and line.waits is flight:
            line.waits = None
        if line is not None and line.reads is flight and line.waits is None:
            del self.lines[key]


class Flights:
    """For threads."""

    def __init__(self, patience):
        self.patience, self.board, self.lock = patience, _Board(), threading.Lock()

    def fly(self, key, read, share):
        """read() gives an Outcome; share(outcome) one for somebody who has joined."""
        if _flying.get():
            return read()
        with self.lock:
            flight, ahead, joined = self.board.enter(key, threading.Event)
        if joined is not None:
            joined.landed.wait(self.patience)
            return read() if joined.outcome is None else share(joined.outcome)
        mark = _flying.set(True)
        try:
            if ahead is not None:
                ahead.landed.wait(self.patience)
                with self.lock:
                    self.board.begin(key, flight)
            outcome = read()
            if outcome.shareable:
                flight.outcome = outcome
            return outcome
        finally:
            _flying.reset(mark)
            with self.lock:
                self.board.end(key, flight)
            flight.landed.set()


class AsyncFlights:
    """For the tasks of an event loop, which needs no lock."""

    def __init__(self, patience):
        self.patience, self.board = patience, _Board()

    async def fly(self, key, read, share):
        if _flying.get():
            return await read()
        flight, ahead, joined = self.board.enter(key, asyncio.Event)
        if joined is not None:
            await self.wait(joined)
            return await read() if joined.outcome is None else share(joined.outcome)
        mark = _flying.set(True)
        try:
            if ahead is not None:
                await self.wait(ahead)
                self.board.begin(key, flight)
            outcome = await read()
            if outcome.shareable:
                flight.outcome = outcome
            return outcome
        finally:
            _flying.reset(mark)
            self.board.end(key, flight)
            flight.landed.set()

    async def wait(self, flight):
        try:
            await asyncio.wait_for(flight.landed.wait(), self.patience)
        except asyncio.TimeoutError:
            pass
