// The items: search, what is known of one, its trend by half-life, similar ones, and the map.

import { ask, enc } from "./api.js";
import { bars, colour, el, fill, rates, tell, theme } from "./dom.js";
import { duration, moment, number, percent, word } from "./words.js";

export function itemsView(root, signal, [itemId = "", text = ""]) {
  const input = el("input", { id: "item-text", value: text, autocomplete: "off", maxlength: 200 });
  const found = el("ol", { class: "list" }), one = el("div", {}), map = el("div", {});
  const search = async () => {
    try {
      const { items } = await ask(`/items?q=${enc(input.value)}&k=30`, { signal });
      fill(found, ...(items.length ? items.map((item) => el("li", {}, el("div", { class: "head" },
        el("a", { href: `#/items/${enc(item.item_id)}/${enc(input.value)}` }, item.item_id),
        el("span", { class: "quiet small" }, item.label), el("span", { class: "number small" }, number(item.count, 1)))))
        : [el("li", { class: "quiet" }, word("nothingFound"))]));
    } catch (error) { tell(error); }
  };
  root.append(
    el("section", { class: "third" }, el("h2", {}, word("items")), el("form", { onsubmit: (event) => { event.preventDefault(); search(); } },
      el("label", { for: "item-text" }, word("search")), input, el("button", { class: "main" }, word("find"))), el("p", {}), found),
    el("section", { class: itemId ? "wide opened" : "wide" }, one, el("h2", {}, word("map")), map));
  search();
  if (itemId) showItem(one, itemId, signal);
  showMap(map, itemId, signal);
}

async function showItem(place, itemId, signal) {
  try {
    const path = `/items/${enc(itemId)}`;
    const [item, trend, similar] = await Promise.all(["", "/trend", "/similar"].map((what) => ask(path + what, { signal })));
    const chart = el("div", { class: "chart" });
    const link = (other) => el("a", { href: `#/items/${enc(other.item_id)}` }, other.item_id);
    fill(place, el("h2", {}, item.item_id),
      el("p", { class: "quiet small" }, [item.label, `+${number(item.positives)} −${number(item.negatives)}`, item.last_event == null ? null : moment(item.last_event)].filter(Boolean).join(" · ")),
      el("h3", {}, word("trend")), el("p", { class: "small quiet" }, word(trend.steps.length ? "trendText" : "none")), chart,
      el("h3", {}, word("counts")), bars(Object.entries(item.counts), (value) => number(value, 1)),
      el("h3", {}, word("similar")), el("ul", {}, ...similar.items.map((other) => el("li", {}, link(other), ` ${percent(other.cosine)}`))),
      el("h3", {}, word("together")), item.chosen_together.length
        ? el("ul", {}, ...item.chosen_together.map((other) => el("li", {}, link(other), ` ${number(other.together, 1)}`))) : el("p", { class: "quiet" }, word("none")));
    if (trend.steps.length) rates(chart, trend.steps, `${word("trend")}: ${trend.steps.map((one) => word("ago", { rate: number(one.events_per_hour, 2), from: duration(one.from_seconds), to: duration(one.to_seconds) })).join("; ")}`);
  } catch (error) { tell(error); }
}

async function showMap(place, itemId, signal) {
  const user = sessionStorage.getItem("user") ?? "";
  try {
    const { items } = await ask("/map", { signal });
    const canvas = el("canvas", { class: "map", role: "img", "aria-label": `${word("map")}: ${number(items.length)}` });
    const name = el("p", { class: "small", "aria-live": "polite" }, " ");
    fill(place, el("p", { class: "small quiet" }, word("mapText", { user: user || "–" })), canvas, name);
    const mine = new Set(user ? (await ask(`/users/${enc(user)}/history`, { signal }).catch(() => ({ history: [] }))).history.map((event) => event.item_id) : []);
    const interests = user ? (await ask(`/users/${enc(user)}/interests`, { signal }).catch(() => ({ interests: [] }))).interests : [];
    const labels = [...new Set(items.map((item) => item.label))];
    const paint = () => {
      const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
      canvas.width = width * scale; canvas.height = height * scale;
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      for (const item of items) {
        item.px = 12 + item.x * (width - 24); item.py = 12 + item.y * (height - 24);
        pen.fillStyle = colour(labels.indexOf(item.label)); pen.globalAlpha = 0.75;
        pen.beginPath(); pen.arc(item.px, item.py, 3, 0, 7); pen.fill();
        if (mine.has(item.item_id) || item.item_id === itemId) {
          pen.globalAlpha = 1; pen.strokeStyle = theme("text"); pen.lineWidth = item.item_id === itemId ? 3 : 1.5;
          pen.beginPath(); pen.arc(item.px, item.py, 8, 0, 7); pen.stroke();
        }
      }
      pen.globalAlpha = 1; pen.font = "600 13px system-ui, sans-serif"; pen.textBaseline = "middle"; pen.lineWidth = 4; pen.lineJoin = "round";
      for (const { label, typical_item: typical, strength, x, y } of interests) {
        const item = x == null ? items.find((one) => one.item_id === typical) : { px: 12 + x * (width - 24), py: 12 + y * (height - 24) };
        if (!item) continue; // of an index without a map, and not among the items that are shown
        const side = 7 + 9 * Math.sqrt(strength), text = `${label || typical} ${percent(strength)}`;
        pen.fillStyle = theme("accent"); pen.strokeStyle = theme("card");
        pen.beginPath(); pen.moveTo(item.px, item.py - side); pen.lineTo(item.px + side, item.py); pen.lineTo(item.px, item.py + side); pen.lineTo(item.px - side, item.py); pen.closePath(); pen.stroke(); pen.fill();
        pen.textAlign = item.px > width / 2 ? "right" : "left";
        const at = item.px + (item.px > width / 2 ? -side - 4 : side + 4);
        pen.strokeText(text, at, item.py); pen.fillStyle = theme("text"); pen.fillText(text, at, item.py);
      }
    };
    const nearest = (event) => {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      return items.reduce((best, item) => Math.hypot(item.px - x, item.py - y) < Math.hypot(best.px - x, best.py - y) ? item : best, items[0]);
    };
    canvas.addEventListener("pointermove", (event) => { const item = nearest(event); if (item) name.textContent = `${item.item_id} · ${item.label}`; });
    canvas.addEventListener("click", (event) => { const item = nearest(event); if (item) location.hash = `#/items/${enc(item.item_id)}`; });
    const watch = new ResizeObserver(paint);
    watch.observe(canvas);
    signal.addEventListener("abort", () => watch.disconnect());
  } catch (error) { tell(error); }
}
