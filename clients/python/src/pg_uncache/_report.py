"""Telling the application and its log."""
from __future__ import annotations

import logging

log = logging.getLogger("pg_uncache")


class Reporter:
    on_event = None

    def event(self, name, details):
        if self.on_event is not None:
            try:
                self.on_event(name, details)
            except Exception:  # it must not break a request
                log.exception("pg_uncache: on_event failed")

    def node(self, kind, name, error):
        if kind == "away":
            log.warning("pg_uncache: Redis at %s does not answer (%s); values are read from the "
                        "database until it does", name, error)
        else:
            log.warning("pg_uncache: Redis at %s answers again", name)
        self.event(kind, {"node": name, "error": error})
