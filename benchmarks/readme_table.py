"""The table of figures in README.md and README.zh-CN.md: at most ten rows, the bad ones too."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks import blocks
from benchmarks.blocks import Results, percent, share, whole
from benchmarks.results import NotMeasuredError

STEADY_RATE = 2000.0
"""Events a second whose latency is told in full; of higher rates only the p99 is."""

CHINESE = {
    "decayed_popularity": "近期趋势",
    "popularity": "流行度",
    "item_knn": "物品最近邻",
    "ease": "EASE",
    "own_frequent": "用户自己最常买的",
    "content": "只用内容",
    "last_item": "与上一件共同出现的物品",
    "best_trend": "最佳半衰期的近期趋势",
    "transitions": "物品转移",
    "trend_and_transitions": "近期趋势加物品转移",
    "recent_popularity": "最近事件中的流行度",
    "live_neighbours": "带衰减的近邻",
    "own_recent": "用户自己最近选过的",
}
"""What the Chinese README calls a simple method."""


class Row(NamedTuple):
    """A row: its page with an anchor, and what and how much in each language."""

    page: str
    en: tuple[str, str]
    zh: tuple[str, str]

    def cells(self, language: str) -> list[str]:
        """Return the cells in a language, the link last."""
        name, _, anchor = self.page.partition("#")
        link = f"[{name}](docs/figures/{name}.md{f'#{anchor}' if anchor else ''})"
        return [*(self.zh if language == "zh" else self.en), link]


def _throughput(results: Results) -> Row:
    runs = results["pipeline"]["figures"]["uniform"]
    ours, bytewax, quix, faust = (
        whole(blocks.median_rate(runs[name]))
        for name in ("tracker", "Bytewax", "Quix Streams", "textbook Faust")
    )
    return Row(
        "speed",
        en=(
            "Throughput of one untrained worker, on two cores with the broker",
            f"{ours} events/s; Bytewax {bytewax}, Quix Streams {quix}, a plain Faust agent {faust}",
        ),
        zh=(
            "单个未训练的 worker 的吞吐量（与 broker 共用两个核）",
            f"每秒 {ours} 个事件；Bytewax {bytewax}，Quix Streams {quix}，普通 Faust agent {faust}",
        ),
    )


def _latency(results: Results) -> Row:
    by_rate = blocks.by_rate(results["latency"])
    rate = max((rate for rate in by_rate if rate <= STEADY_RATE), default=min(by_rate))
    times = ", ".join(f"{name} {_middle(by_rate[rate], name)} ms" for name in ("p50", "p95", "p99"))
    en, zh = times, times.replace(", ", "，")
    for more in (other for other in by_rate if other > rate):
        p99 = _middle(by_rate[more], "p99")
        en += f"; at {whole(more)}: p99 {p99} ms"
        zh += f"；每秒 {whole(more)} 个：p99 {p99} ms"
    return Row(
        "speed#latency",
        en=(f"Latency from event to list, untrained, at {whole(rate)} events/s", en),
        zh=(f"从事件到列表的延迟（未训练，每秒 {whole(rate)} 个事件）", zh),
    )


def _middle(runs: Sequence[Mapping[str, float]], name: str) -> str:
    return f"{statistics.median(run[name] for run in runs):.0f}"


def _faults(results: Results) -> Row:
    results["faults"]
    count = blocks.walks(results)
    faults = whole(count["draws"])
    users, items = whole(count["users"]), whole(count["items"])
    return Row(
        "faults",
        en=(
            f"Wrong states after {faults} different faults and other actions",
            f"{count['wrong_users']} of {users} users, {count['wrong_items']} of {items} items",
        ),
        zh=(
            f"经过 {faults} 次不同的故障及其他操作后，出错的状态",
            f"{users} 个用户中 {count['wrong_users']} 个，"
            f"{items} 个物品中 {count['wrong_items']} 个",
        ),
    )


def _quality(name: str, en: str, zh: str) -> Callable[[Results], Row]:
    def row(results: Results) -> Row:
        served = percent(blocks.rows_of(results[name])["tracker_served"]["hit_rate_at_10"])
        best = blocks.best_simple(results[name])
        simple, english = percent(best["hit_rate_at_10"]), blocks.short_name(best["model"])
        return Row(
            name,
            en=(en, f"{served}; the best simple method ({english}) {simple}"),
            zh=(zh, f"{served}；最好的简单方法（{CHINESE[best['model']]}）{simple}"),
        )

    return row


def _new_users(results: Results) -> Row:
    first = {one["model"]: one for one in results["new-users"]["figures"]["parts"][0]["models"]}
    tracker, popularity = (
        percent(first[name]["hit_rate_at_10"][0]) for name in ("tracker_served", "popularity")
    )
    return Row(
        "groceries#new-users",
        en=(
            "First purchases of users never seen before, in the list of ten",
            f"{tracker}; plain popularity {popularity}",
        ),
        zh=(
            "从未见过的用户，最初几次购买在十项列表里的比例",
            f"{tracker}；只按流行度 {popularity}",
        ),
    )


def _probabilities(results: Results) -> Row:
    rows = blocks.rows_of(results["films"])
    tracker, mean = (share(rows[name]["user_auc"]) for name in ("tracker", "item_mean"))
    return Row(
        "probabilities",
        en=(
            "Will the user rate this film well? AUC within users",
            f"{tracker}; the film's mean rating {mean}",
        ),
        zh=("用户会给这部电影打高分吗？用户内 AUC", f"{tracker}；只用电影平均分 {mean}"),
    )


def _trained(results: Results) -> Row:
    runs = results["trained"]["figures"]["runs"]
    trained, untrained = (blocks.median_rate(runs[name]) for name in ("trained", "untrained"))
    part = percent(trained / untrained, 0)
    return Row(
        "speed#trained-beside-untrained",
        en=(
            "The same worker after a training, on films",
            f"{whole(trained)} events/s, {part} of the {whole(untrained)} before it",
        ),
        zh=(
            "同一个 worker 训练之后（电影数据）",
            f"每秒 {whole(trained)} 个事件，是训练前 {whole(untrained)} 的 {part}",
        ),
    )


def _bytes(results: Results) -> Row:
    figures = results["bytes-films"]["figures"]
    largest = whole(figures["most"]["state_with_encoder"])
    mean, seen = whole(figures["state"]["mean"]), whole(figures["most"]["seen"])
    return Row(
        "states#bytes-per-user",
        en=(
            "Bytes of a user's state",
            f"at most {largest}; mean on films {mean}; with a long history up to {seen} more",
        ),
        zh=(
            "一个用户状态的字节数",
            f"最多 {largest}；电影数据上平均 {mean}；历史很长时最多再加 {seen}",
        ),
    )


ROWS: tuple[Callable[[Results], Row], ...] = (
    _throughput,
    _trained,
    _latency,
    _faults,
    _quality("films", "Next film in the list of ten", "下一部电影在十项列表里的比例"),
    _quality(
        "groceries",
        "Next purchase (groceries) in the list of ten",
        "下一件商品（超市）在十项列表里的比例",
    ),
    _new_users,
    _probabilities,
    _bytes,
)


def readme_table(results: Results, language: str = "en") -> str:
    """Return the table of a README; rows that are not measured are left out."""
    lines = [["", "", "详情" if language == "zh" else "More"], ["---"] * 3]
    for row in ROWS:
        try:
            lines.append(row(results).cells(language))
        except NotMeasuredError:
            continue
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
