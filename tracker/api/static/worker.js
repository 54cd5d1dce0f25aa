// The workers: rates from the metrics, partitions and owners, rejections, versions of the index.

import { ask, askHealth, askText, enc } from "./api.js";
import { el, fill, say, tell } from "./dom.js";
import { clock, moment, number, percent, word } from "./words.js";

export function workerView(root, signal) {
  const figures = el("div", { class: "figures" }), fleet = el("div", { class: "scroll", tabindex: "0" });
  const rejections = el("div", { class: "scroll", tabindex: "0" }), versions = el("div", { class: "scroll", tabindex: "0" });
  const attention = el("ul", {}), region = el("div", { role: "status" }, attention);
  root.append(el("section", {}, el("h2", {}, word("worker")), figures, el("h3", {}, word("attention")), region), el("section", { class: "half" }, el("h2", {}, word("fleet")), fleet),
    el("section", { class: "half" }, el("h2", {}, word("versions")), versions), el("section", {}, el("h2", {}, word("rejections")), rejections));
  let before = null, away = false;
  const turn = async () => {
    try {
      const now = { at: performance.now() / 1000, ...parse(await askText("metrics")) };
      const since = before;
      drawFigures(figures, since, now);
      if (!before || now.at - before.at > 4) before = now;
      const failed = []; // one answer that fails does not keep the others from being shown
      const get = (path) => ask(path, { signal }).catch((error) => { failed.push(error); return null; });
      const [workers, rejected, artifacts, health] = await Promise.all([get("/workers"), get("/rejections?k=10"), get("/artifacts"), askHealth()]);
      drawAttention(attention, since, now, rejected, artifacts, health, failed);
      if (workers) drawFleet(fleet, workers);
      if (rejected) drawRejections(rejections, rejected);
      if (artifacts) drawVersions(versions, artifacts, signal);
      if (failed.length) tell(failed[0]);
      else if (away) say("");
      away = failed.length > 0;
    } catch (error) {
      if (error instanceof TypeError && !signal.aborted) drawLines(attention, [word("gone")]);
      tell(error);
      away = true;
    }
    if (!signal.aborted) setTimeout(turn, 2000);
  };
  turn();
}

function parse(text) {
  const series = {};
  for (const [, name, labels, value] of text.matchAll(/^(\w+)(?:\{([^}]*)\})? (\S+)$/gm)) {
    (series[name] ??= []).push([Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, key, one]) => [key, one])), Number(value)]);
  }
  return series;
}

const sum = (rows = [], fits = () => true) => rows.filter(([labels]) => fits(labels)).reduce((total, [, value]) => total + value, 0);

function quantile(before, now, share) {
  const counts = new Map();
  for (const [labels, value] of now.tracker_latency_seconds_bucket ?? []) counts.set(labels.le, (counts.get(labels.le) ?? 0) + value);
  for (const [labels, value] of before?.tracker_latency_seconds_bucket ?? []) counts.set(labels.le, (counts.get(labels.le) ?? 0) - value);
  const edges = [...counts].map(([edge, count]) => [edge === "+Inf" ? Infinity : Number(edge), count]).sort((a, b) => a[0] - b[0]);
  const total = edges.at(-1)?.[1] ?? 0;
  return total > 0 ? edges.find(([, count]) => count >= share * total)[0] : null;
}

function drawFigures(place, before, now) {
  const seconds = before ? now.at - before.at : 0;
  const rate = seconds > 0 ? (sum(now.tracker_events_total) - sum(before.tracker_events_total)) / seconds : null;
  const inList = sum(now.tracker_next_events_total, ({ in_list: yes }) => yes === "yes"), next = sum(now.tracker_next_events_total);
  const late = (share) => { const at = quantile(before, now, share) ?? quantile(null, now, share); return at == null ? "–" : `${number(at, 3)} ${word("seconds")}`; };
  const gain = (now.tracker_learning ?? []).filter(([labels]) => labels.value === "gain");
  const shown = [["perSecond", number(rate, 1)], ["latency50", late(0.5)], ["latency99", late(0.99)], ["lag", number(sum(now.tracker_lag))], ["hits", next ? percent(inList / next, 1) : "–"]];
  if (gain.length) shown.push(["learning", number(gain.reduce((total, [, value]) => total + value, 0) / gain.length, 4)]);
  fill(place, ...shown.map(([name, value]) => el("div", {}, el("strong", {}, value), el("span", { class: "quiet small" }, word(name)))));
}

/** What an operator has to look at now, each with what to do. */
function drawAttention(place, before, now, rejected, artifacts, health, failed) {
  const grown = (name) => (before ? sum(now[name]) - sum(before[name]) : 0);
  const lines = [...health.live.map((reason) => word("notAlive", { reason })), ...health.waits.map((reason) => word("notYetReady", { reason }))];
  const silence = Math.max(0, ...(now.tracker_broker_silence_seconds ?? []).map(([, value]) => value));
  if (silence > 0) lines.push(word("silent", { since: clock(Date.now() / 1000 - silence) }));
  if (grown("tracker_rejected_total") > 0) {
    const [reason] = Object.entries(rejected?.counts ?? {}).sort((a, b) => b[1] - a[1])[0] ?? ["?"];
    const perSecond = grown("tracker_rejected_total") / Math.max(now.at - before.at, 0.1);
    lines.push(word("rejecting", { rate: number(perSecond, perSecond < 10 ? 1 : 0), reason }));
  }
  if (artifacts?.problem) lines.push(word("refusedVersion", { problem: artifacts.problem, inUse: artifacts.in_use }));
  else if (artifacts?.latest && artifacts.latest !== artifacts.in_use) lines.push(word("changing", { latest: artifacts.latest, inUse: artifacts.in_use }));
  if (sum(now.tracker_dropped_total) > 0) lines.push(word("dropping", { count: number(sum(now.tracker_dropped_total)) }));
  if (sum(now.tracker_unreadable_rows_total) > 0) lines.push(word("unreadable", { count: number(sum(now.tracker_unreadable_rows_total)) }));
  drawLines(place, [...lines, ...failed.map((error) => error.message)]);
}

function drawLines(place, lines) {
  const text = lines.join("\n");
  if (place.dataset.text === text && place.childElementCount) return; // told once, also to screen readers
  place.dataset.text = text;
  fill(place, ...(lines.length ? lines.map((line) => el("li", { class: "down" }, line)) : [el("li", { class: "quiet" }, word("allWell"))]));
}

const table = (names, rows) => el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));

const short = (address) => address.replace(/^https?:\/\//, "");

function drawFleet(place, answer) {
  const rows = answer.partitions.map((one) => el("tr", {}, el("td", {}, `${one.topic}-${one.partition}`), el("td", {}, short(answer.address)),
    el("td", { class: "number" }, number(one.lag)), el("td", { class: "number" }, number(one.rows)), el("td", {}, one.waits_for ?? "–")));
  const others = answer.workers.filter((one) => one.address !== answer.address).map((one) => el("tr", {}, el("td", {}, one.partitions.join(", ")), el("td", {}, short(one.address)), el("td", {}), el("td", {}), el("td", {})));
  fill(place, el("p", {}, `${answer.address} · ${word(answer.ready ? "ready" : "notReady")}${answer.reasons.length ? `: ${answer.reasons.join("; ")}` : ""}`),
    table(["partition", "owner", "lag", "state", "waits"].map((name) => word(name)), [...rows, ...others]));
}

function drawRejections(place, { counts, last }) {
  const reasons = Object.entries(counts);
  if (!reasons.length) { fill(place, el("p", { class: "quiet" }, word("none"))); return; }
  fill(place, table([word("reason"), word("number")], reasons.map(([reason, count]) => el("tr", {}, el("td", {}, reason), el("td", { class: "number" }, number(count))))),
    el("h3", {}, word("lastOnes")), el("ul", {}, ...last.map((one) => el("li", {}, `${one.topic}-${one.partition} @${one.offset} · ${one.reason}: ${one.message} `, el("code", {}, one.value.slice(0, 120))))));
}

function drawVersions(place, { versions }, signal) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const change = async (path, question, fields) => {
    if (!confirm(word(question, fields))) return;
    try { const { version } = await ask(path, { body: null, signal }); say(word("done", { version })); } catch (error) { tell(error); }
  };
  fill(place, table(["version", "created", "number", "recall", "change"].map((name) => word(name)), versions.map((one) => el("tr", {},
    el("td", {}, one.version, one.in_use ? el("span", { class: "tag" }, word("inUse")) : null, one.latest ? el("span", { class: "tag" }, word("latest")) : null),
    el("td", {}, one.created ? moment(Date.parse(one.created) / 1000) : "–"), el("td", { class: "number" }, number(one.items)), el("td", { class: "number" }, number(one.recall, 3)),
    el("td", {}, one.latest ? null : el("button", { type: "button", "data-key": one.version, onclick: () => change(`/artifacts/${enc(one.version)}/publish`, "confirmPublish", { version: one.version }) }, word("publish")))))),
    el("p", {}, el("button", { type: "button", "data-key": "back", disabled: versions.length < 2, onclick: () => change("/artifacts/rollback", "confirmBack", {}) }, word("rollback"))));
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}
