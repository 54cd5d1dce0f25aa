"""What can become of an event that is applied to a user's row."""

APPLIED = 0
"""The event is in the state."""
DUPLICATE = 1
"""Its event id is in the ring: ignored."""
RETRACTED = 2
"""A retraction that took its event out."""
RETRACTION_WAITS = 3
"""A retraction whose event is not known; it waits for it in a bounded set."""
TOO_OLD = 4
"""A retraction of an event that the ring no longer holds: ignored."""
RETRACTED_ON_ARRIVAL = 5
"""An event whose retraction had come first: kept in the ring, not counted."""
ALREADY_RETRACTED = 6
"""A repeated retraction: ignored."""
