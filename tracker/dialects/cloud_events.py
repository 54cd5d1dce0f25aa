"""CloudEvents: the envelope around events of our own or of another format."""

import base64
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tracker.dialects.paths import parsed_json
from tracker.events.dialect import OWN, Dialect, Fields, Part, numbered
from tracker.events.foreign import ForeignValueError, object_of

ENVELOPE = "cloudevents"
"""The name of the envelope; `cloudevents:segment` is the envelope around another format."""

_VERSION = re.compile(r"\.v\d+(\.\d+)*$", re.IGNORECASE)


class _OwnFormat:
    """Our own format, within an envelope."""

    name = OWN

    def records(self, content: Any) -> list[Any]:
        """Return the events of an array, or the one."""
        return content if isinstance(content, list) else [content]

    def parts(self, record: Fields) -> list[Part]:
        """Return the event."""
        return [Part(record)]

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return the event."""
        return record

    def hint(self) -> str:
        """Return nothing: messages name our fields already."""
        return ""


class CloudEvents:
    """The envelope of CloudEvents 1.0 in its structured mode, also a batch of them.

    `data` holds a record of another format. Where that has no event id, `source` and `id` together
    are it; where it has no timestamp, `time` is, and for a kind the last part of `type`, without
    the version after it.

    Args:
        inner: the format of `data`.
    """

    def __init__(self, inner: Dialect | None) -> None:
        self._inner = inner or _OwnFormat()
        self.name = ENVELOPE if inner is None else f"{ENVELOPE}:{inner.name}"

    def records(self, content: Any) -> list[Any]:
        """Return the envelopes of a batch, or the one; those whose data are several, each.

        The ids of such envelopes are told apart by a number: `17`, `17.2`, `17.3`.
        """
        envelopes = content if isinstance(content, list) else [content]
        return [
            _envelope_of(envelope, data, place) if len(inner) > 1 else envelope
            for envelope in envelopes
            for inner in [self._records_of(envelope)]
            for place, data in enumerate(inner)
        ]

    def _records_of(self, envelope: Any) -> list[Any]:
        if not isinstance(envelope, dict) or "data" not in envelope:
            return [None]
        return self._inner.records(parsed_json(envelope["data"])) or [None]

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of an envelope.

        Raises:
            ForeignValueError: it is no envelope, or its data are not of the inner format.
            PassedOver: the data say nothing of items.
        """
        if "specversion" not in record or not ("data" in record or "data_base64" in record):
            raise ForeignValueError(
                "missing_field",
                "no CloudEvent in structured mode: specversion, id, source, type and data are"
                " expected; in binary mode set the format to that of the value itself",
            )
        data = self._data(record)
        parts = self._inner.parts(object_of(data, "data is no object"))
        event_id = None
        if record.get("id") is not None:
            event_id = f"{record.get('source') or ''} {record['id']}".strip()
        return [self._completed(part, record, event_id) for part in parts]

    def _data(self, record: Fields) -> Any:
        if "data" in record:
            data = parsed_json(record["data"])
        else:
            try:
                data = msgspec.json.decode(base64.b64decode(record["data_base64"]))
            except (ValueError, TypeError, msgspec.DecodeError, RecursionError) as error:
                raise ForeignValueError(
                    "not_json", f"data_base64 holds no JSON ({error}); an event is expected"
                ) from error
        return data[0] if isinstance(data, list) and len(data) == 1 else data

    def _completed(self, part: Part, record: Fields, event_id: str | None) -> Part:
        fields = dict(part.fields)
        if event_id is not None and fields.get("event_id") is None and "was" not in fields:
            fields["event_id"] = numbered(event_id, max(0, part.place))
        if fields.get("timestamp") is None and record.get("time") is not None:
            fields["timestamp"] = record["time"]
        is_action = not any(name in fields for name in ("retracts", "takes_back", "was"))
        if is_action and fields.get("kind") is None and isinstance(record.get("type"), str):
            fields["kind"] = _word_of(record["type"])
        return Part(fields, part.place)

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return an envelope with only some of the items of its data."""
        rest = {name: value for name, value in record.items() if name != "data_base64"}
        return rest | {"data": self._inner.only(self._data(record), places)}

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""
        return f" (in data){self._inner.hint()}"


def _envelope_of(envelope: Fields, data: Any, place: int) -> Fields:
    """Return the envelope around one of several data, with an id of its own."""
    numbers = {"id": f"{envelope['id']}.{place + 1}"} if place and envelope.get("id") else {}
    return envelope | numbers | {"data": data}


def _word_of(type_name: str) -> str:
    """Return the last word of a type, which may end in a version.

    >>> _word_of("com.example.shop.click"), _word_of("com.example.shop.click.v2")
    ('click', 'click')
    """
    return _VERSION.sub("", type_name).rpartition(".")[2]
