"""Header of a record batch in Kafka's message format 2, as it is read and written.

Source of the format: Apache Kafka, protocol guide, "Record Batch".
"""

import struct

MAGIC = 2

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset, first and latest
time, producer id, its epoch, base sequence, number of records."""

CHECKED_FROM = 21
"""The checksum covers a batch from this byte on."""

LENGTH_FROM = 12
"""The length counts a batch from this byte on."""
