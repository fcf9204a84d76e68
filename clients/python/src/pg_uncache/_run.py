"""Carrying out what the generators of _link.py and _flow.py ask for.

Each step that they yield is (function, argument...); its result, or its exception, goes back into
the generator.  So one text serves callers that block and callers that await."""
from __future__ import annotations

import inspect


def run(flow):
    reply = error = None
    try:
        while True:
            call, *args = flow.send(reply) if error is None else flow.throw(error)
            reply = error = None
            try:
                reply = call(*args)
            except BaseException as caught:
                error = caught
    except StopIteration as end:
        return end.value


async def arun(flow):
    reply = error = None
    try:
        while True:
            call, *args = flow.send(reply) if error is None else flow.throw(error)
            reply = error = None
            try:
                reply = call(*args)
                if inspect.isawaitable(reply):
                    reply = await reply
            except BaseException as caught:
                error = caught
    except StopIteration as end:
        return end.value
