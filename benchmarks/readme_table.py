"""The table of figures in README.md and README.zh-CN.md: at most ten rows, the bad ones too."""

import statistics
from collections.abc import Iterator

from benchmarks import blocks
from benchmarks.blocks import Results, percent, share, whole

CHINESE = {
    "decayed_popularity": "近期趋势",
    "popularity": "流行度",
    "item_knn": "物品最近邻",
    "ease": "EASE",
    "own_frequent": "用户自己最常买的",
    "content": "仅内容",
    "last_item": "与上一个一起被选的",
}
"""What the Chinese README calls a simple method."""


def readme_rows(results: Results, language: str = "en") -> Iterator[list[str]]:
    """Yield the rows of the README's table: what, figure, link; the bad ones too."""

    def row(page: str, **texts: tuple[str, str]) -> list[str]:
        name, _, anchor = page.partition("#")
        link = f"[{name}](docs/figures/{name}.md{f'#{anchor}' if anchor else ''})"
        return [*texts[language], link]

    runs = results["throughput"]["figures"]["uniform"]
    ours, quix, faust = (
        blocks.median_rate(runs[name]) for name in ("tracker", "Quix Streams", "textbook Faust")
    )
    yield row(
        "speed",
        en=(
            "Throughput of one worker, on two cores with the broker",
            f"{whole(ours)} events/s; Quix Streams {whole(quix)}, a plain Faust agent"
            f" {whole(faust)}",
        ),
        zh=(
            "单个 worker 的吞吐量（与 broker 共用两个核）",
            f"{whole(ours)} 事件/秒；Quix Streams {whole(quix)}，普通 Faust agent {whole(faust)}",
        ),
    )
    rate, paced = list(blocks.by_rate(results["latency"]).items())[-1]
    times = ", ".join(
        f"{name} {statistics.median(run[name] for run in paced):.0f} ms"
        for name in ("p50", "p95", "p99")
    )
    yield row(
        "speed#latency",
        en=(f"Latency from event to list, at {whole(rate)} events/s", times),
        zh=(f"从事件到推荐列表的延迟（每秒 {whole(rate)} 个事件）", times),
    )
    outcome = results["faults"]["figures"]["outcome"]
    count = outcome["numbers"]
    yield row(
        "faults",
        en=(
            f"Wrong states after {count['faults']} kills, stops and freezes",
            f"{count['wrong_users']} of {whole(outcome['users'])} users,"
            f" {count['wrong_items']} of {whole(outcome['items'])} items",
        ),
        zh=(
            f"经过 {count['faults']} 次杀死、停止和冻结后，错误的状态",
            f"{whole(outcome['users'])} 个用户中 {count['wrong_users']} 个，"
            f"{whole(outcome['items'])} 个物品中 {count['wrong_items']} 个",
        ),
    )
    for name, en, zh in (
        ("films", "Next film in the list of ten", "下一部电影在前十名中"),
        (
            "groceries",
            "Next purchase of groceries in the list of ten",
            "下一次购买的商品在前十名中",
        ),
    ):
        served = percent(blocks.rows_of(results[name])["tracker_served"]["hit_rate_at_10"])
        best = blocks.best_simple(results[name])
        simple, english = percent(best["hit_rate_at_10"]), blocks.short_name(best["model"])
        yield row(
            name,
            en=(en, f"{served}; the best simple method ({english}) {simple}"),
            zh=(zh, f"{served}；最好的简单方法（{CHINESE[best['model']]}）{simple}"),
        )
    first = {one["model"]: one for one in results["new-users"]["figures"]["parts"][0]["models"]}
    tracker, popularity = (
        percent(first[name]["hit_rate_at_10"][0]) for name in ("tracker", "popularity")
    )
    yield row(
        "groceries#new-users",
        en=(
            "First purchases of users never seen before, in the list of ten",
            f"{tracker}; plain popularity {popularity}",
        ),
        zh=("从未见过的用户的最初几次购买在前十名中", f"{tracker}；仅按流行度 {popularity}"),
    )
    rows = blocks.rows_of(results["films-all"])
    ours_auc, mean_auc = (share(rows[name]["user_auc"]) for name in ("tracker", "item_mean"))
    yield row(
        "probabilities",
        en=(
            "Will the user rate this film well? AUC within users",
            f"{ours_auc}; the film's mean rating {mean_auc}",
        ),
        zh=("用户会给这部电影高分吗？用户内 AUC", f"{ours_auc}；电影平均评分 {mean_auc}"),
    )
    one = results["recommend"]["figures"]
    trained, plain = (
        f"{one['microseconds'][name]['recommend']:.0f} µs"
        for name in ("network and encoder", "blend")
    )
    yield row(
        "speed#one-recommendation",
        en=(
            f"Processor time of one list, {whole(one['items'])} items",
            f"{trained} with everything trained, {plain} with nothing trained",
        ),
        zh=(
            f"生成一个列表的处理器时间（{whole(one['items'])} 个物品）",
            f"全部训练后 {trained}，未训练 {plain}",
        ),
    )
    most, state = (results["bytes-films"]["figures"][name] for name in ("most", "state"))
    largest, mean = whole(most["state_with_encoder"]), whole(state["mean"])
    yield row(
        "states#bytes-per-user",
        en=("Bytes of a user's state", f"at most {largest}; mean on films {mean}"),
        zh=("每个用户状态的字节数", f"最多 {largest}；电影数据上平均 {mean}"),
    )


def readme_table(results: Results, language: str = "en") -> str:
    """Return the table of a README."""
    more = {"en": "More", "zh": "详情"}[language]
    lines = [["", "", more], ["---"] * 3, *readme_rows(results, language)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
