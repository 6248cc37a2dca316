"""What goes wrong with an object store, told in one line with the remedy."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

REQUEST = re.compile(r"\s*\(Request ID: [^)]*\)")
REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "InvalidAccessKeyId")
EXPIRED = ("EXPIRED_TOKEN", "ExpiredToken", "INVALID_CLIENT_TOKEN", "UNRECOGNIZED_CLIENT", "InvalidToken")
UNREACHABLE = ("NETWORK_CONNECTION", "curlCode", "REQUEST_TIMEOUT", "Could not connect", "resolve host")
BUSY = ("SLOW_DOWN", "THROTTLING", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE")
REMEDIES = (
    (
        ("NO_SUCH_BUCKET", "NoSuchBucket", "bucket does not exist"),
        "there is no such bucket; create it, or correct the address",
    ),
    (
        (*REFUSED, "HTTP status 403", "FORBIDDEN", "Access Denied"),
        "the store refuses access; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE to a user who "
        "may list, read, write and delete there",
    ),
    (EXPIRED, "the store refuses the credentials: expired or unknown; get new ones and run again"),
    (
        UNREACHABLE,
        "the store cannot be reached; check the network and AWS_ENDPOINT_URL, then run again: what was "
        "whole before counts, nothing half-written does",
    ),
    (BUSY, "the store is overloaded or fails; run again later: nothing half-written counts"),
)
"""Words of the AWS SDK's messages, and what they come down to."""


class StoreError(OSError):
    """An object store cannot be used, or what lies there is not what was written; one line with the remedy."""


class SpoiltResultError(StoreError):
    """What lies on the store is not what an asset wrote."""


class LeaseLostError(StoreError):
    """Another machine writes to the recipe."""


@contextmanager
def told_of(uri: str) -> Iterator[None]:
    """Turn what the store's client raises into a line that names `uri`; FileNotFoundError stays one.

    Raises:
        FileNotFoundError: there is no such object.
        StoreError: anything else.
    """
    try:
        yield
    except (StoreError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno not in (None, errno.EIO, errno.EACCES, errno.EPERM) and error.filename is not None:
            raise  # of the local disk
        raise StoreError(f"{uri}: {remedy_for(str(error))}") from None


def remedy_for(message: str) -> str:
    """Return what a message of the store's client comes down to, with the remedy and the message."""
    plain = " ".join(REQUEST.sub("", message).split())
    for words, remedy in REMEDIES:
        if any(word in plain for word in words):
            return f"{remedy} ({plain})"
    return f"the store failed; run again ({plain})"
