"""Errors by which brokers say that they do not allow something."""

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

DENIALS = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


def denial_of(error: object) -> BaseException | None:
    """Return the denial that an error is, or that has led to it; None if there is none."""
    passed: set[int] = set()
    one = error if isinstance(error, BaseException) else None
    while one is not None and id(one) not in passed:
        if isinstance(one, DENIALS):
            denial: BaseException = one
            return denial
        passed.add(id(one))
        one = one.__cause__ or one.__context__
    return None
