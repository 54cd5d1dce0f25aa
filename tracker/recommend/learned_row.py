"""The learned models of a partition, as a row that is kept beside the states."""

import zlib

import msgspec

FORMAT = 2


class LearnedRowError(ValueError):
    """A row of what was learned cannot be read; the message says what was found."""


class NewerLearnedRowError(LearnedRowError):
    """A newer version wrote the row, which must not be written over."""


class Learned(msgspec.Struct, array_like=True):
    """The learned values of one model, with its progress.

    `code` tells the published weights that it belongs to. `loss` is the mean loss of the latest
    examples before they were learned from, `gain` how much more it would have been by the
    published weights: nats. `values` are what the model says it has learned.
    """

    code: int
    steps: int = 0
    loss: float = 0.0
    gain: float = 0.0
    values: bytes = b""


class _Row(msgspec.Struct, array_like=True):
    format: int
    models: dict[str, Learned]


def encode_learned(models: dict[str, Learned]) -> bytes:
    """Return the row: CRC-32 of the rest, little-endian, and the rest in MessagePack."""
    body = msgspec.msgpack.encode(_Row(FORMAT, models))
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode_learned(row: bytes) -> dict[str, Learned]:
    """Read what `encode_learned` wrote, and format 1.

    Of that one, what `scenes` had learned, a shift each, is not taken over: it becomes `attention`
    of no published weights, so that it starts again and is said to.

    Raises:
        NewerLearnedRowError: a newer version wrote it.
        LearnedRowError: the row is damaged, or of a format that this version does not know.
    """
    body = row[4:]
    if zlib.crc32(body).to_bytes(4, "little") != row[:4]:
        raise LearnedRowError(f"{len(row)} bytes that are damaged: the checksum does not fit")
    try:
        number, _ = msgspec.msgpack.decode(body, type=tuple[int, msgspec.Raw])
        if not 1 <= number <= FORMAT:
            kind = NewerLearnedRowError if number > FORMAT else LearnedRowError
            raise kind(f"format {number}; this version reads 1 to {FORMAT}")
        models = msgspec.msgpack.decode(body, type=_Row).models
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LearnedRowError(f"{len(row)} bytes that are no row of this kind: {error}") from error
    if number == 1 and "scenes" in models:
        models["attention"] = Learned(0, models.pop("scenes").steps)
    return models
