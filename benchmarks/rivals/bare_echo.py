"""An echo: each event is written again as it is. No latency through this broker can be lower.

Run: python -m benchmarks.rivals.bare_echo (settings in BENCH_* variables).
"""

import os

from benchmarks.rivals.bare_loop import CHUNK, clients


def main() -> None:
    """Echo events until the process is ended."""
    consumer, producer, _ = clients()
    output = os.environ["BENCH_OUTPUT"]
    while True:
        for record in consumer.consume(CHUNK, 0.001):
            if record.error() is None:
                producer.produce(output, record.value(), record.key(), record.partition())
        producer.poll(0)


if __name__ == "__main__":
    main()
