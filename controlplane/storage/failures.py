"""Where pymongo's errors become the domain's. What a duplicate key means is decided by each repository.

No message holds a connection string: it may carry the password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from controlplane.errors import MalformedRequest, StorageError, StorageUnavailable

_UNAUTHORIZED = frozenset({13, 18})  # Unauthorized, AuthenticationFailed
_DUPLICATE_KEY = 11000
_PASSING = frozenset({6, 7, 11600, 11602, 10107, 13435, 13436, 189, 91})  # host gone, shutting down, not the primary


@contextmanager
def translated() -> Iterator[None]:
    """Raises StorageUnavailable for what may pass, StorageError for what will not, MalformedRequest for a value that
    the database cannot hold. Duplicate keys go through, as DuplicateKeyError or, in bulk, as BulkWriteError."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except BulkWriteError as error:
        if _has_only_duplicates(error):
            raise
        raise StorageError(f"The database refused a write: {_first_message(error)}.") from error
    except (ConnectionFailure, ExecutionTimeout, WriteConcernError) as error:
        raise StorageUnavailable(f"The database cannot be reached: {_first_words(error)}.") from error
    except InvalidOperation as error:
        raise StorageUnavailable(f"The database cannot be used: {_first_words(error)}.") from error
    except OperationFailure as error:
        raise _refused(error) from error
    except PyMongoError as error:
        if error.timeout:
            raise StorageUnavailable(f"The database did not answer in time: {_first_words(error)}.") from error
        raise StorageError(f"The database failed: {_first_words(error)}.") from error
    except (BSONError, UnicodeEncodeError, OverflowError) as error:
        raise MalformedRequest("A value cannot be stored: it is not proper text, or too large a number.") from error


def _has_only_duplicates(error: BulkWriteError) -> bool:
    codes = {each.get("code") for each in (error.details or {}).get("writeErrors", [])}
    return codes == {_DUPLICATE_KEY}


def _first_message(error: BulkWriteError) -> str:
    details = error.details or {}
    complaints = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
    return str(complaints[0].get("errmsg", "")) if complaints else _first_words(error)


def _refused(error: OperationFailure) -> StorageUnavailable | StorageError:
    if error.code in _UNAUTHORIZED:
        return StorageUnavailable(
            "The database refuses the user or the password of the connection string, or what this user may do."
        )
    if error.code in _PASSING or error.timeout:
        return StorageUnavailable(f"The database cannot answer now: {_first_words(error)}.")
    return StorageError(f"The database refused a command: {_first_words(error)}.")


def _first_words(error: Exception) -> str:
    """pymongo appends its settings, the topology or the server's whole answer: keep what a person reads."""
    text = str(error)
    for tail in (" (configured timeouts:", ", full error:", ", Timeout: "):
        text = text.split(tail, 1)[0]
    return text.rstrip(". ")
