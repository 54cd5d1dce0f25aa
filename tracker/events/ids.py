"""Ids as texts: what an id may be in events, catalogues and files of any format."""


class IdError(ValueError):
    """A value cannot be an id; the message names the field, what was found and the remedy."""


def id_text(value: object, field: str) -> str:
    """Return the text of an id: a text as it is, a whole number in decimal digits.

    So 17 and "17" are the same id. A float is refused: 17.0 and 1e300 have many forms as a text,
    and a float above 2^53 is no longer the number that was written.

    Args:
        value: as it was found.
        field: its name, for the message.

    Raises:
        IdError: it is neither a text nor a whole number.

    >>> id_text(17, "item_id"), id_text("17", "item_id")
    ('17', '17')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise IdError(
            f"{field} is the float {value!r}; an id is a text or a whole number: write it in"
            f" quotes, or without a fraction (pandas: .astype('Int64'))"
        )
    names = {bool: "true or false", dict: "an object", list: "an array", type(None): "null"}
    what = names.get(type(value), f"a {type(value).__name__}")
    raise IdError(f"{field} is {what}; an id is a text or a whole number")
