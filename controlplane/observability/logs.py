"""Structured logs: one JSON object a line, with the request id, and with secrets taken out before anything is written.

Records go through a bounded queue to a writer thread, so that a slow standard error never holds up the IOLoop; at the
bound records are dropped and the number dropped is written with the next one that fits.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

request_id_of_context: ContextVar[str | None] = ContextVar("request_id", default=None)

QUEUE_RECORDS = 10_000
LAST_RECORDS_SECONDS = 5.0
_SECRET_PATTERNS = (
    re.compile(r"(?i)(bearer\s+)[a-z0-9._~+/=-]+"),
    re.compile(r"(?i)([?&](?:token|ide_token|ticket|access_token|code|secret)=)[^&\s\"']+"),
    re.compile(r"(?i)(mongodb(?:\+srv)?://[^:/@\s]+:)[^@\s]+(?=@)"),
    re.compile(r"\b(eyJ)[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
    re.compile(r"\b(cpk_)[A-Za-z0-9_-]{8,}"),
)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "request_id"}


def redact(text: str) -> str:
    """The text without bearer tokens, JWTs, API keys, secret query parameters and database passwords."""
    for pattern in _SECRET_PATTERNS:
        text = pattern.sub(r"\1***", text)
    return text


class JsonFormatter(logging.Formatter):
    """`time, level, logger, message, requestId` and whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        request_id = getattr(record, "request_id", None)
        if request_id is not None:
            entry["requestId"] = request_id
        for key, value in vars(record).items():
            if key not in _STANDARD_FIELDS:
                entry[key] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        elif record.exc_text:
            entry["exception"] = redact(record.exc_text)
        return orjson.dumps(entry, default=lambda value: redact(str(value)), option=orjson.OPT_NON_STR_KEYS).decode()


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    """Never blocks: at the bound it counts, and says so when there is room again."""

    def __init__(self, records: queue.Queue[Any]) -> None:
        super().__init__(records)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.request_id = request_id_of_context.get()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        record.msg = record.getMessage()
        record.args = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.dropped:
                record.dropped_before = self.dropped
            self.queue.put_nowait(record)
            self.dropped = 0
        except queue.Full:
            self.dropped += 1


class _BoundedListener(logging.handlers.QueueListener):
    """Ends although nobody reads what it writes."""

    def stop(self) -> None:
        """Write what is queued, then end. What is not taken within LAST_RECORDS_SECONDS is lost, and the process ends
        here with the status that it would have had: the interpreter's own end would wait for the stuck writer.
        """
        writer = self._thread
        assert writer is not None
        try:
            self.queue.put(self._sentinel, timeout=LAST_RECORDS_SECONDS)  # type: ignore[attr-defined]
            writer.join(LAST_RECORDS_SECONDS)
        except queue.Full:
            pass
        if writer.is_alive():
            os._exit(1 if sys.exc_info()[0] else 0)


def configure_logging(level: str, stream: TextIO = sys.stderr) -> logging.handlers.QueueListener:
    """Send every logger's records to `stream` as JSON. Stop the returned listener last, to write what is queued."""
    records: queue.Queue[Any] = queue.Queue(QUEUE_RECORDS)
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonFormatter())
    listener = _BoundedListener(records, writer)
    root = logging.getLogger()
    root.handlers[:] = [_BoundedQueueHandler(records)]
    root.setLevel(level)
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    listener.start()
    return listener
