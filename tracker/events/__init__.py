"""What crosses Kafka, what each kind of event says, chunks of events as columns."""
