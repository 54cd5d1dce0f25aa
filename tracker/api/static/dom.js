// Small helpers: elements, messages, and charts in the colours of the page.

import { Problem } from "./api.js";
import { clock, duration, number, percent, word } from "./words.js";

const message = document.getElementById("message");

/** Texts of the ticks of a time axis, in the reader's form. */
const clocks = (_, ticks, axis, space, step) => ticks.map((tick) => clock(tick, step < 60));

export function el(name, fields = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(fields)) {
    if (value == null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const fill = (node, ...children) => { node.replaceChildren(...children.filter((child) => child != null)); return node; };
export const colour = (index) => getComputedStyle(document.documentElement).getPropertyValue(`--s${index % 8}`).trim();
export const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function say(text) { message.textContent = text; }

/** Tell an error in words; one about the token opens the field for it. */
export function tell(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Problem) {
    document.getElementById("token").hidden = error.status !== 401;
    say(error.status === 503 ? `${word("retry")} ${error.message}` : error.message);
  } else if (error instanceof TypeError) say(word("offline"));
  else { say(String(error)); console.error(error); }
}

/** A stack of shares over time: `times` in seconds, `labels`, and `shares[label][n]`. */
export function stack(holder, times, labels, shares, describe) {
  holder.replaceChildren();
  const below = times.map(() => 0);
  const sums = labels.map((label) => times.map((_, n) => (below[n] += shares[label][n] ?? 0)));
  const order = labels.map((_, n) => n).reverse();
  const axis = { stroke: theme("quiet"), grid: { stroke: theme("line"), width: 1 }, ticks: { stroke: theme("line") } };
  const chart = new window.uPlot({
    width: Math.max(holder.clientWidth, 200), height: 240, cursor: { show: false }, legend: { show: false },
    scales: { x: { time: true }, y: { range: [0, 1] } },
    axes: [{ ...axis, values: clocks }, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => percent(tick)) }],
    series: [{}, ...order.map((n) => ({ label: labels[n], stroke: colour(n), fill: colour(n), width: 1, points: { show: times.length < 2 } }))],
  }, [times, ...order.map((n) => sums[n])], holder);
  chart.root.setAttribute("role", "img");
  chart.root.setAttribute("aria-label", describe);
  return chart;
}

const AGES = [600, 3600, 21600, 86400];

/** Events an hour by age, the newest at the right; each has a bar over the ages that half of its weight is of. */
export function rates(holder, oldestFirst, describe) {
  holder.replaceChildren();
  const shown = [...oldestFirst].reverse();
  const axis = { stroke: theme("quiet"), grid: { stroke: theme("line"), width: 1 }, ticks: { stroke: theme("line") } };
  const bars = (chart) => {
    const pen = chart.ctx;
    pen.save();
    pen.strokeStyle = colour(0); pen.lineWidth = 5 * window.devicePixelRatio; pen.lineCap = "round";
    for (const one of shown) {
      const y = chart.valToPos(one.events_per_hour, "y", true);
      pen.beginPath(); pen.moveTo(chart.valToPos(one.from_seconds, "x", true), y); pen.lineTo(chart.valToPos(one.to_seconds, "x", true), y); pen.stroke();
    }
    pen.restore();
  };
  const chart = new window.uPlot({
    width: Math.max(holder.clientWidth, 200), height: 180, cursor: { show: false }, legend: { show: false }, hooks: { draw: [bars] },
    scales: { x: { time: false, distr: 3, dir: -1, range: [shown[0].from_seconds / 1.2, shown.at(-1).to_seconds * 1.2] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
    axes: [{ ...axis, splits: () => AGES, filter: (_, ticks) => ticks, values: (_, ticks) => ticks.map((tick) => duration(tick, "short")) }, { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => number(tick, 2)) }],
    series: [{}, { stroke: colour(0), width: 1, dash: [4, 4], points: { show: true, size: 9, fill: colour(0) } }],
  }, [shown.map((one) => one.middle_seconds), shown.map((one) => one.events_per_hour)], holder);
  chart.root.setAttribute("role", "img");
  chart.root.setAttribute("aria-label", describe);
  return chart;
}

/** Bars with their values: rows of [label, value]. */
export function bars(rows, format) {
  const most = Math.max(...rows.map(([, value]) => value), 1e-9);
  return el("table", {}, el("tbody", {}, ...rows.map(([label, value], n) => el("tr", {},
    el("th", { scope: "row", style: { width: "7rem", fontWeight: "normal" } }, label),
    el("td", {}, el("div", { class: "bar" }, el("span", { style: { width: `${(100 * value) / most}%`, background: colour(n) } }))),
    el("td", { class: "number", style: { width: "5rem" } }, format(value))))));
}
