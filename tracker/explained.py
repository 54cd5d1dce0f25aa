"""Errors whose text says what to do, and the one line that any error is shown as."""

import re


class Explained(Exception):
    """Base of the errors that a person can put right: shown as one line, without a traceback.

    Any other error that ends a command or a worker is a bug, and its traceback is logged.
    """


ONCE = {"once": True}
"""The `extra` of a log line that its sender writes once for a worker, partition or rebalance."""


def first_line(error: BaseException) -> str:
    """Return one line for an error: its reason, or the name of its class if it has no text.

    An error of the operating system gives its reason alone, because the caller names the file.

    >>> first_line(FileNotFoundError(2, "No such file or directory", "a.jsonl"))
    'No such file or directory'
    >>> first_line(TimeoutError())
    'TimeoutError'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


_SECRETS = re.compile(
    r"(?<=://)[^/@\s]+(?=@)|(?<=[?&])((?:[\w-]*(?:key|secret|token|password|signature))|sig)=[^&\s]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text with what URLs in it say of users and passwords masked.

    >>> without_secrets("s3://id:secret@host/artifacts?endpoint=x&token=abc cannot be read")
    's3://***@host/artifacts?endpoint=x&*** cannot be read'
    """
    return _SECRETS.sub("***", text)
