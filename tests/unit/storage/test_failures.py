"""Which of pymongo's errors becomes which of ours, and that no more is told than a person needs."""

from __future__ import annotations

import pytest
from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from controlplane.errors import ControlPlaneError, MalformedRequest, StorageError, StorageUnavailable
from controlplane.storage.failures import translated


def translation_of(error: Exception) -> ControlPlaneError:
    with pytest.raises(ControlPlaneError) as caught, translated():
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NetworkTimeout("timed out"),
        NotPrimaryError("not primary"),
        ServerSelectionTimeoutError("no servers found yet"),
        ExecutionTimeout("operation exceeded time limit", 50),
        WTimeoutError("waiting for replication timed out", 64),
        InvalidOperation("Cannot use MongoClient after close"),
        OperationFailure("interrupted at shutdown", 11600),
        OperationFailure("authentication failed", 18),
        OperationFailure("not authorized", 13),
    ],
)
def test_what_may_pass_is_unavailable(error: Exception) -> None:
    assert type(translation_of(error)) is StorageUnavailable


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("bad query", 2),
        PyMongoError("something"),
        BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 121, "errmsg": "failed validation"}]}),
    ],
)
def test_what_does_not_pass_is_a_storage_error(error: Exception) -> None:
    assert type(translation_of(error)) is StorageError


@pytest.mark.parametrize(
    "error",
    [InvalidDocument("key"), OverflowError("too large"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")],
)
def test_a_value_that_cannot_be_stored_is_the_requests_fault(error: Exception) -> None:
    assert type(translation_of(error)) is MalformedRequest


@pytest.mark.parametrize(
    "error", [DuplicateKeyError("E11000"), BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 11000}]})]
)
def test_duplicate_keys_go_through(error: Exception) -> None:
    with pytest.raises(type(error)), translated():
        raise error


def test_a_message_is_cut_before_what_pymongo_appends() -> None:
    text = (
        "127.0.0.1:1: [Errno 111] Connection refused (configured timeouts: socketTimeoutMS: 500.0ms), Timeout: 0.5s, "
        "Topology Description: <TopologyDescription id: 1>"
    )
    assert translation_of(ServerSelectionTimeoutError(text)).message == (
        "The database cannot be reached: 127.0.0.1:1: [Errno 111] Connection refused."
    )
