"""Log lines are JSON, carry the request id, and hold no secrets; the queue is bounded."""

from __future__ import annotations

import io
import json
import logging
import queue

import pytest

from controlplane.observability.logs import JsonFormatter, _BoundedQueueHandler, redact, request_id_of_context


@pytest.mark.parametrize(
    "secret_text",
    [
        "Authorization: Bearer SECRETVALUE",
        "GET /__ide/5/?token=SECRETVALUE&x=1",
        "/api/game/servers/1/console?ticket=SECRETVALUE",
        "mongodb://user:SECRETVALUE@db.example/x",
        "eyJhbGciOiJIUzI1NiJ9.SECRETVALUE.SECRETVALUE",
        "cpk_SECRETVALUE",
    ],
)
def test_secrets_are_taken_out(secret_text: str) -> None:
    assert "SECRETVALUE" not in redact(secret_text)


def _record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("t").makeRecord("t", logging.INFO, "f.py", 1, message, (), None, extra=extra)


def test_a_line_is_json_with_its_fields() -> None:
    line = json.loads(JsonFormatter().format(_record("hello", route="/x", status=200, request_id="r1")))
    assert line["message"] == "hello"
    assert (line["route"], line["status"], line["requestId"], line["level"]) == ("/x", 200, "r1", "info")


def test_fields_are_redacted_too() -> None:
    assert "SECRETVALUE" not in JsonFormatter().format(_record("x", path="/?token=SECRETVALUE"))


def test_an_exception_is_written_without_its_secrets() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    error = ValueError("Bearer SECRETVALUE")
    record = logging.getLogger("t").makeRecord("t", logging.ERROR, "f.py", 1, "bad", (), (ValueError, error, None))
    _BoundedQueueHandler(records).handle(record)
    line = JsonFormatter().format(records.get_nowait())
    assert "ValueError" in line
    assert "SECRETVALUE" not in line


def test_the_request_id_of_the_context_travels_with_the_record() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    token = request_id_of_context.set("req-1")
    try:
        _BoundedQueueHandler(records).handle(_record("x"))
    finally:
        request_id_of_context.reset(token)
    assert json.loads(JsonFormatter().format(records.get_nowait()))["requestId"] == "req-1"


def test_a_full_queue_drops_and_says_how_many() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue(1)
    handler = _BoundedQueueHandler(records)
    for _ in range(4):
        handler.handle(_record("x"))
    records.get_nowait()
    handler.handle(_record("y"))
    assert json.loads(JsonFormatter().format(records.get_nowait()))["dropped_before"] == 3


def test_logging_reaches_the_stream() -> None:
    stream = io.StringIO()
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonFormatter())
    writer.handle(_record("written"))
    assert json.loads(stream.getvalue())["message"] == "written"
