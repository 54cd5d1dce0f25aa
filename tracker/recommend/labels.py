"""Labels of a user's interests: an item's label, and a word of its text if an older one has it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.texts import JsonStrings, Texts, joined
from tracker.kernels.native import native

Array = NDArray[Any]

LEAST_BYTES = 3
"""Bytes of a word at least; of a word that begins outside of ASCII twice as many."""

MOST_BYTES = 24
"""Bytes of a word that are written at most."""

_NUMBER = -1
"""In place of the beginning of a word: a number tells the interests apart."""


class Words:
    """Tells interests apart that have the same label, by a word of their most typical item.

    Interests are named in the order in which they began. The first one with a label has it plain.
    Any later one gets the first word of its item's text that is neither in the label nor in the
    texts of the older ones' items. An interest without a label has such a word alone. A name
    depends on the interest's own typical item and on those of older interests with the same label.
    So a new interest never renames an older one, and a name stays from event to event as long as
    these keep their items.

    Args:
        labels: the label table of the catalogue.
        texts: N texts of items; where there are none, their ids.
    """

    def __init__(self, labels: Sequence[str], texts: Sequence[str]) -> None:
        self.names = list(labels)
        self._labels, self._texts = _utf8(labels), _utf8(texts)

    @property
    def text(self) -> NDArray[np.uint8]:
        """The texts of all items, as UTF-8; spans are of it."""
        return self._texts.text

    def spans(
        self, labels: NDArray[np.int32], medoids: NDArray[np.int64], births: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return what follows the labels of S interests of each of B users: (B, S, 2) int64.

        Args:
            labels: (B, S) codes of labels, -1 for none.
            medoids: (B, S) catalogue rows of the most typical items, -1 for none.
            births: (B, S) order in which the interests began, 0 the oldest; -1 for no interest.

        Returns:
            begin and end of a word in `text`; 0 and 0 for no word; -1 and a number for that.
        """
        out = np.zeros((*labels.shape, 2), np.int64)
        _choose_words(labels, medoids, births, self._labels, self._texts, out)
        return out

    def name(self, label: int, begin: int, end: int) -> str:
        """Return the label of an interest with what follows it."""
        text = self.names[label] if label >= 0 else ""
        if begin == _NUMBER:
            return f"{text or '?'} {end}"
        if end == 0:
            return text
        word = self.text[begin:end].tobytes().decode(errors="replace")
        return f"{text}: {word}" if text else word


def _utf8(texts: Sequence[str]) -> Texts:
    if isinstance(texts, JsonStrings):
        return texts.utf8()
    return joined([text.encode(errors="replace") for text in texts])


@native
def _is_letter(text: Array, at: int) -> bool:
    """Return whether a byte is of a letter: ASCII ones, and all beyond but for punctuation."""
    byte = text[at]
    if byte < 128:
        return bool(65 <= byte <= 90 or 97 <= byte <= 122)
    first = at
    while first > 0 and at - first < 3 and (text[first] & 0xC0) == 0x80:
        first -= 1
    lead = text[first]
    second = text[first + 1] if first + 1 < len(text) else 0
    if lead == 0xC2:  # signs of Latin-1
        return False
    if lead == 0xE2:  # general punctuation, signs, arrows
        return bool(second >= 0xB0)
    if lead == 0xE3:  # punctuation of Chinese and Japanese
        return bool(second != 0x80)
    return bool(lead != 0xEF or second < 0xBC)  # and its wide forms


@native
def _lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@native
def _has(text: Array, begin: int, end: int, words: Array, start: int, stop: int) -> bool:
    """Return whether text[begin:end] has words[start:stop], whatever the case of ASCII letters."""
    width = stop - start
    for at in range(begin, end - width + 1):
        same = True
        for i in range(width):
            if _lower(text[at + i]) != _lower(words[start + i]):
                same = False
                break
        if same:
            return True
    return False


@native
def _next_word(text: Array, at: int, end: int) -> tuple[int, int]:
    """Return begin and end of the next word from a place on; `end` twice if there is none."""
    while at < end:
        if not _is_letter(text, at):
            at += 1
            continue
        begin = at
        while at < end and _is_letter(text, at):
            at += 1
        least = LEAST_BYTES if text[begin] < 128 else 2 * LEAST_BYTES
        if at - begin >= least:
            stop = at
            if stop - begin > MOST_BYTES:
                stop = begin + MOST_BYTES
                while stop > begin and (text[stop] & 0xC0) == 0x80:
                    stop -= 1
            return begin, stop
    return end, end


@native
def _is_label(labels: Texts, label: int, text: Array, begin: int, end: int) -> bool:
    """Return whether text[begin:end] is a label, byte by byte."""
    start = labels.starts[label]
    if labels.starts[label + 1] - start != end - begin:
        return False
    same = True
    for i in range(end - begin):
        same &= labels.text[start + i] == text[begin + i]
    return same


@native
def _choose_words(
    labels: Array, medoids: Array, births: Array, names: Texts, texts: Texts, out: Array
) -> None:
    """Fill what `Words.spans` returns."""
    text, starts = texts
    width = labels.shape[1]
    order = np.empty(width, np.int64)  # interests, the oldest first
    for b in range(len(labels)):
        count = 0
        for s in range(width):
            if births[b, s] < 0:
                continue
            at = count
            while at > 0 and births[b, order[at - 1]] > births[b, s]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = s
            count += 1
        for i in range(count):
            s = order[i]
            label = labels[b, s]
            twins = 0
            for j in range(i):
                older = order[j]
                is_twin = labels[b, older] == label
                if label >= 0 and labels[b, older] < 0 and out[b, older, 0] >= 0:
                    # It has no label, but its word may be this one.
                    is_twin = _is_label(names, label, text, out[b, older, 0], out[b, older, 1])
                twins += is_twin
            if twins == 0 and label >= 0:
                continue
            row = medoids[b, s]
            is_chosen = False
            at = starts[row] if row >= 0 else 0
            stop = starts[row + 1] if row >= 0 else 0
            while not is_chosen:
                begin, end = _next_word(text, at, stop)
                if begin == end:
                    break
                at = end
                if label >= 0 and _has(
                    names.text, names.starts[label], names.starts[label + 1], text, begin, end
                ):
                    continue
                is_chosen = True
                for j in range(i):
                    other = labels[b, order[j]]
                    medoid = medoids[b, order[j]]
                    if other != label:
                        if label < 0 and _is_label(names, other, text, begin, end):
                            is_chosen = False
                            break
                    elif medoid >= 0 and _has(
                        text, starts[medoid], starts[medoid + 1], text, begin, end
                    ):
                        is_chosen = False
                        break
                if is_chosen:
                    out[b, s, 0] = begin
                    out[b, s, 1] = end
            if not is_chosen:
                out[b, s, 0] = _NUMBER
                out[b, s, 1] = twins + 1
