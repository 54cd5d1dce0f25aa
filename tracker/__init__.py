"""The tracker: events in from Kafka, interest states, recommendations out."""
