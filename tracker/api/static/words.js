// Texts of the page in English and Chinese, and numbers and times in the reader's own form.

const WORDS = {
  en: {
    title: "Interest tracker", user: "A user", items: "The items", worker: "The workers", skip: "Skip to the content",
    theme: "Light or dark", token: "Token of the worker", open: "Open", userId: "User id", show: "Show",
    seenNow: "Seen just now", nobody: "No event has come to this worker yet. Send one, and its user appears here.",
    interests: "Interests", interestsNow: "Interests now", overTime: "Interests over time", share: "share", dayChange: "in a day",
    age: "age", events: "events", typical: "Most typical", recent: "Latest", list: "The list", scene: "Scene", noScene: "none",
    because: "because of", earlier: "earlier events", view: "View", like: "Like", buy: "Buy", dislike: "Not interested",
    takeBack: "Take it back", sent: "Sent: {kind} {item}. The list follows.", tookBack: "Taken back.", isNew: "new", up: "up", down: "down",
    unknownUser: "Nothing is known of this user yet. The list is that of a new user.", whatIf: "What if?",
    whatIfText: "Other weights, other diversity: the list beside the present one. Nothing is stored.", diversity: "Diversity",
    older: "{share} of the sums are of older events, which no slider changes.", same: "The list would be the same.",
    place: "Place", before: "now", after: "then", history: "Events", when: "when", kind: "kind", item: "item", weight: "weight",
    retracted: "taken back", known: "known", search: "Search by id or label", find: "Find", counts: "Chosen lately, by half-life", similar: "Similar items",
    trend: "Chosen an hour, over the last day", trendText: "Each point is a weighted mean, exact from the item's decayed counts. Its bar spans the ages that half of the weight is of. How the rate changed within a bar is not known.",
    ago: "{rate} an hour, from {from} to {to} ago",
    together: "Chosen together", map: "Map of the catalogue", mapText: "The two main directions of the items' texts, so near items are often alike. Diamonds: the interests of {user}, rings: the latest items.",
    nothingFound: "No item has this text.", perSecond: "events a second", latency50: "half of the lists within", latency99: "99 of 100 lists within",
    lag: "events that wait", hits: "live hit rate", fleet: "Partitions and workers", partition: "Partition", owner: "Worker", waits: "Waits for", state: "States",
    rejections: "Records that were not taken", reason: "Reason", number: "Number", lastOnes: "The latest", none: "None.",
    versions: "Versions of the index", version: "Version", created: "Made", recall: "Recall", publish: "Publish", rollback: "Roll back",
    inUse: "in use", latest: "latest", confirmPublish: "Make {version} the latest version for all workers?", confirmBack: "Go back to the version before the latest, for all workers?",
    done: "Done: {version} is the latest version.", learning: "Gain of online learning, in nats", loading: "Loading …", retry: "The worker is busy; trying again.",
    attention: "Needs attention", allWell: "Nothing.", notAlive: "{reason}. If the brokers run, restart the worker.", notYetReady: "{reason}. It goes on by itself.",
    rejecting: "{rate} records a second are not taken, most of them: {reason}. Mend the producer; the latest are below.",
    refusedVersion: "{problem}. Meanwhile {inUse} serves, and nothing is lost: roll back below, or build again.",
    silent: "The brokers have not answered since {since}. Events wait there, and nothing is lost; the numbers above stand still. Look at the brokers: it goes on by itself.",
    gone: "The worker does not answer. Look at the last line of its log, and start it again; nothing is lost. What stands here is from before.",
    changing: "Version {latest} is being loaded; {inUse} serves until then.", dropping: "{count} lists were not sent: they are larger than the broker takes, or it did not answer. Look at TRACKER_K and the brokers.",
    unreadable: "{count} rows of states could not be read; their users go on without them. The log names them.",
    offline: "The worker does not answer.", why: "Why?", seconds: "s", ready: "ready", notReady: "not ready", change: "Change", messages: "Messages",
  },
  zh: {
    title: "兴趣追踪器", user: "用户", items: "物品", worker: "工作进程", skip: "跳到正文",
    theme: "浅色或深色", token: "工作进程的令牌", open: "打开", userId: "用户编号", show: "查看",
    seenNow: "刚刚出现的用户", nobody: "还没有事件到达。发送一个事件后,用户会出现在这里。",
    interests: "兴趣", interestsNow: "当前兴趣", overTime: "兴趣随时间的变化", share: "占比", dayChange: "一天内",
    age: "时长", events: "事件", typical: "最典型", recent: "最近", list: "推荐列表", scene: "场景", noScene: "无",
    because: "因为", earlier: "更早的事件", view: "浏览", like: "喜欢", buy: "购买", dislike: "不感兴趣",
    takeBack: "撤回", sent: "已发送:{kind} {item}。列表随后更新。", tookBack: "已撤回。", isNew: "新", up: "上升", down: "下降",
    unknownUser: "还没有这个用户的记录。下面是新用户的列表。", whatIf: "如果……",
    whatIfText: "换一组权重或多样性:与当前列表并排显示。不保存任何内容。", diversity: "多样性",
    older: "总和中有 {share} 来自更早的事件,滑块无法改变它们。", same: "列表不变。",
    place: "名次", before: "现在", after: "之后", history: "事件", when: "时间", kind: "类型", item: "物品", weight: "权重",
    retracted: "已撤回", known: "已知", search: "按编号或标签搜索", find: "搜索", counts: "近期被选次数(按半衰期)", similar: "相似物品",
    trend: "最近一天每小时被选次数", trendText: "每个点是由该物品的衰减计数精确得出的加权平均值。横条表示一半权重所在的时间范围;横条之内如何变化无法得知。",
    ago: "{from}前至{to}前:每小时 {rate} 次",
    together: "同时被选", map: "商品地图", mapText: "物品文字的两个主要方向,因此相近的物品往往相似。菱形:{user} 的兴趣;圆圈:最近的物品。",
    nothingFound: "没有找到物品。", perSecond: "事件/秒", latency50: "一半列表的时延不超过", latency99: "百分之九十九列表的时延不超过",
    lag: "等待中的事件", hits: "实时命中率", fleet: "分区与工作进程", partition: "分区", owner: "工作进程", waits: "等待", state: "状态数",
    rejections: "未被接受的记录", reason: "原因", number: "数量", lastOnes: "最近的记录", none: "无。",
    versions: "索引版本", version: "版本", created: "创建时间", recall: "召回率", publish: "发布", rollback: "回退",
    inUse: "使用中", latest: "最新", confirmPublish: "让所有工作进程使用版本 {version}?", confirmBack: "让所有工作进程回到上一个版本?",
    done: "完成:最新版本是 {version}。", learning: "在线学习的收益(奈特)", loading: "加载中……", retry: "工作进程繁忙,正在重试。",
    attention: "需要注意", allWell: "没有。", notAlive: "{reason}。如果 Kafka 正常,请重启工作进程。", notYetReady: "{reason}。会自行继续。",
    rejecting: "每秒有 {rate} 条记录未被接受,主要原因:{reason}。请修正生产者;最近的记录见下方。",
    refusedVersion: "{problem}。目前仍由 {inUse} 提供服务,没有丢失:请在下方回退,或重新构建。",
    silent: "Kafka 从 {since} 起没有响应。事件在 Kafka 中等待,不会丢失;上面的数字已停止更新。请检查 Kafka:恢复后会自行继续。",
    gone: "工作进程没有响应。请查看其日志的最后一行并重新启动;没有丢失。以下是之前的内容。",
    changing: "正在加载版本 {latest};在此之前由 {inUse} 提供服务。", dropping: "有 {count} 个列表未发送:超过 Kafka 的上限,或 Kafka 没有响应。请检查 TRACKER_K 和 Kafka。",
    unreadable: "有 {count} 行状态无法读取;相应用户从空状态继续。日志中有说明。",
    offline: "工作进程没有响应。", why: "为什么?", seconds: "秒", ready: "就绪", notReady: "未就绪", change: "操作", messages: "消息",
  },
};

let language = (localStorage.getItem("language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";

export const locale = () => (language === "zh" ? "zh-CN" : navigator.language.startsWith("zh") ? "en" : navigator.language);
export const isChinese = () => language === "zh";
export const otherLanguage = () => { language = isChinese() ? "en" : "zh"; localStorage.setItem("language", language); };

export function word(name, fields = {}) {
  return (WORDS[language][name] ?? name).replace(/\{(\w+)\}/g, (_, field) => fields[field] ?? "");
}

export const clock = (seconds, fine) =>
  new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit", ...(fine ? { second: "2-digit" } : {}) }).format(new Date(seconds * 1000));
export const number = (value, digits = 0) =>
  value == null ? "–" : new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
export const percent = (value, digits = 0) =>
  value == null ? "–" : new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: digits }).format(value);
export const signed = (value) =>
  new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0, signDisplay: "exceptZero" }).format(value);
export const moment = (seconds) =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(new Date(seconds * 1000));

export function duration(seconds, unitDisplay = "long") {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
  return new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay, maximumFractionDigits: 0 }).format(seconds / size);
}

export function translate(root = document) {
  document.documentElement.lang = isChinese() ? "zh" : "en";
  for (const node of root.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of root.querySelectorAll("[data-word-label]")) node.setAttribute("aria-label", word(node.dataset.wordLabel));
}
