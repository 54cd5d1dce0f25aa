"""Answers about what is kept of a person: all of it, and its end."""

import asyncio

from tracker.api.host import Host
from tracker.api.messages import ExportAnswer, ForgetAnswer, Remains
from tracker.api.problems import ProblemError
from tracker.api.server import Call
from tracker.explained import first_line
from tracker.kafka.cluster import BrokerError, TopicError
from tracker.lookup.forget import ForgetError, forget_user
from tracker.lookup.person import export_user

FORGET_SECONDS = 5.0
"""Time to wait until the workers have forgotten a user; the request is valid in any case."""

EXPORT_SECONDS = 9.0
"""Time in which the topics have to be read."""


class Persons:
    """Exports users, and asks the workers to forget them.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def forget(self, call: Call) -> ForgetAnswer:
        """Ask all workers to forget a user, and wait a little until they have.

        Raises:
            ProblemError: there is no topic of forgettings, or Kafka does not answer.
        """
        settings = self._host.context.settings
        try:
            report = await forget_user(settings, call.path["user_id"], FORGET_SECONDS)
        except TopicError as error:
            raise ProblemError(409, str(error)) from error
        except ForgetError as error:
            raise ProblemError(400, str(error)) from error
        except (BrokerError, RuntimeError, TimeoutError) as error:  # a KafkaError is the second
            raise ProblemError(503, f"Kafka does not answer: {first_line(error)}") from error
        return ForgetAnswer(
            report.request, report.complete, report.waiting, report.was_known,
            report.events_taken_out, report.events_left,
            [Remains(one.place, one.what, one.seconds) for one in report.remainders],
        )  # fmt: skip

    async def export(self, call: Call) -> ExportAnswer:
        """Return all that the topics keep of a user.

        Raises:
            ProblemError: nothing is kept, or the topics are too long to be read now.
        """
        context = self._host.context
        user_id, artifact = call.path["user_id"], context.keeper.current.artifact
        try:
            async with asyncio.timeout(EXPORT_SECONDS):
                person = await export_user(context.settings, artifact, user_id)
        except TimeoutError as error:
            raise ProblemError(
                503, "the topics are too long to be read in time; run `tracker export-user`"
            ) from error
        except (BrokerError, RuntimeError) as error:
            raise ProblemError(503, f"Kafka does not answer: {first_line(error)}") from error
        if person is None:
            raise ProblemError(404, "nothing is kept of this user")
        return ExportAnswer(
            user_id, person["states"], person.get("records", {}), person["attributes"]
        )
