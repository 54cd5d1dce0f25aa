"""Check the ratios of benchmarks/results/ against their bounds; exit with 1 if one is missed.

    make bench-check

It is run by hand after `make bench`: nothing is measured here. A result that is not there is named
and is no failure.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.results import NotMeasuredError, Stored, read_results


class Bound(NamedTuple):
    """A ratio, and the least or the most that it may be."""

    name: str
    value: Callable[[Stored], float]
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


def _middle(runs: Sequence[dict[str, Any]], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


def _beside(rival: str, name: str = "events_per_second") -> Callable[[Stored], float]:
    def value(results: Stored) -> float:
        figures = results["pipeline"]["figures"]["uniform"]
        if rival not in figures:
            raise NotMeasuredError(f"pipeline with {rival}")
        return _middle(figures["tracker"], name) / _middle(figures[rival], name)

    return value


def _p99(rival: str, rate: float) -> Callable[[Stored], float]:
    def value(results: Stored) -> float:
        figures = results["latency"]["figures"]["latency_ms"]
        found = []
        for system in ("tracker", rival):
            runs = [run for run in figures.get(system, []) if run["rate"] == rate]
            if not runs:
                raise NotMeasuredError(f"latency with {system} at {rate:,.0f}")
            found.append(_middle(runs, "p99"))
        return found[0] / max(1.0, found[1])

    return value


def _start(name: str) -> Callable[[Stored], float]:
    return lambda results: float(results["start"]["figures"]["times_the_imports"]["seconds"][name])


def _core(rate: int) -> Callable[[Stored], float]:
    def value(results: Stored) -> float:
        runs = [run for run in results["idle"]["figures"]["runs"] if run["rate"] == rate]
        return _middle(runs, "core")

    return value


def _swap(results: Stored) -> float:
    runs = results["swap"]["figures"]["runs"]
    return float(statistics.median(run["during_p99"] / run["before_p99"] for run in runs))


def _pause(action: str, beyond_session: bool = False) -> Callable[[Stored], float]:
    def value(results: Stored) -> float:
        figures = results["pauses"]["figures"]
        runs = figures["actions"].get(action, [])
        if not runs:
            raise NotMeasuredError(f"pauses with {action}")
        longest = float(max(one for run in runs for one in (*run["moved"], *run["stayed"]))) / 1000
        return longest - float(figures["plan"]["session_timeout"] if beyond_session else 0.0)

    return value


def _wiped(results: Stored) -> float:
    figures = results["pauses-wiped"]["figures"]
    runs = [run for runs in figures["actions"].values() for run in runs]
    timeout = float(figures["plan"]["session_timeout"])
    longest = [max(run["moved"] + run["stayed"]) / 1000 - run["recovery"] for run in runs]
    return float(max(longest)) - timeout


def _trained(results: Stored) -> float:
    runs = results["trained"]["figures"]["runs"]
    rate = "events_per_second"
    return float(
        statistics.median(
            one[rate] / other[rate]
            for one, other in zip(runs["trained"], runs["untrained"], strict=True)
        )
    )


BOUNDS = [
    Bound("throughput beside Quix Streams", _beside("Quix Streams"), least=2.2),
    Bound("throughput beside Bytewax", _beside("Bytewax"), least=2.2),
    Bound("throughput beside textbook Faust", _beside("textbook Faust"), least=18.0),
    Bound("throughput beside the bare loop", _beside("bare loop"), least=0.6),
    Bound(
        "processor time an event beside Quix Streams",
        _beside("Quix Streams", "cpu_microseconds"),
        most=0.6,
    ),
    Bound("throughput, trained beside untrained", _trained, least=0.6),
    *(
        Bound(f"p99 at {rate:,.0f} events/s beside {rival}", _p99(rival, rate), most=most)
        for rate in (200.0, 1000.0, 2000.0)
        for rival, most in (("Quix Streams", 0.8), ("echo", 4.0))
    ),
    Bound("share of a core at 0 events/s", _core(0), most=0.02),
    Bound("share of a core at 100 events/s", _core(100), most=0.10),
    Bound("share of a core at 1,000 events/s", _core(1000), most=0.30),
    Bound("start beside the imports, kernels compiled", _start("compiled"), most=2.0),
    Bound("start beside the imports, none compiled", _start("none_compiled"), most=8.0),
    Bound(
        "bare read of a changelog beside a recovery",
        lambda results: _middle(results["recover"]["figures"]["runs"], "bare_by_recovery"),
        least=0.5,
    ),
    Bound("p99 during a swap beside before", _swap, most=2.0),
    Bound(
        "seconds without a list: killed, beyond the session timeout", _pause("kill", True), most=3.0
    ),
    Bound(
        "seconds without a list: disk lost, beyond the session timeout and the recovery",
        _wiped,
        most=3.0,
    ),
    Bound("seconds without a list: SIGTERM", _pause("term"), most=1.0),
    Bound("seconds without a list: a worker joins", _pause("join"), most=1.0),
]


def report(results: Stored, bounds: Sequence[Bound]) -> tuple[list[str], bool]:
    """Return a line for each bound, and whether all hold that are measured."""
    lines, good = [], True
    for bound in bounds:
        limit = (
            f"at least {bound.least:g}" if bound.least is not None else f"at most {bound.most:g}"
        )
        try:
            value = bound.value(results)
        except NotMeasuredError as missing:
            lines.append(f"-      {bound.name}: not measured: {missing.args[0]}")
            continue
        holds = bound.holds(value)
        good = good and holds
        lines.append(f"{'ok    ' if holds else 'MISSED'} {bound.name}: {value:.2f}, {limit}")
    return lines, good


def main() -> int:
    """Print the report."""
    lines, good = report(read_results(), BOUNDS)
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
