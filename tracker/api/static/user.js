// A user: interests that move, the list with its reasons, events by a click, and what-if.

import { ask, enc, follow } from "./api.js";
import { bars, colour, el, fill, say, stack, tell } from "./dom.js";
import { duration, moment, number, percent, signed, word } from "./words.js";

const KINDS = { view: "view", like: "like", buy: "purchase", dislike: "dislike" };
const SLIDERS = ["view", "click", "like", "cart", "purchase", "dislike"]; // as far as they have a weight here
const MOMENTS = 240;

export function userView(root, signal, [userId = "", scene = ""]) {
  if (userId) sessionStorage.setItem("user", userId);
  const state = { user: userId, scene, list: null, places: null, undo: null, times: [], shares: {}, labels: [], whys: new Map() };
  const seen = el("ul", { class: "chips" });
  const input = el("input", { id: "user-id", value: userId, autocomplete: "off", required: true, maxlength: 256 });
  const form = el("form", { onsubmit: (event) => { event.preventDefault(); go(input.value, ""); } },
    el("label", { for: "user-id" }, word("userId")), input, el("button", { class: "main" }, word("show")));
  root.append(el("section", {}, el("h2", {}, word("user")), form, el("h3", { class: "small quiet" }, word("seenNow")), seen));
  every(3000, signal, async () => {
    const { users } = await ask("/users?k=30", { signal });
    const focused = document.activeElement?.dataset?.user;
    fill(seen, ...(users.length ? users.map(({ user_id: id }) => el("li", {},
      el("button", { type: "button", "data-user": id, "aria-pressed": String(id === userId), onclick: () => go(id, "") }, id)))
      : [el("li", { class: "quiet" }, word("nobody"))]));
    if (focused) seen.querySelector(`[data-user="${CSS.escape(focused)}"]`)?.focus();
  });
  if (userId) showUser(root, signal, state);
}

function go(user, scene) { location.hash = `#/user/${enc(user)}${scene ? `/${enc(scene)}` : ""}`; }

function every(milliseconds, signal, work) {
  let failed = false;
  const turn = async () => {
    try {
      await work();
      if (failed) say("");
      failed = false;
    } catch (error) { failed = true; tell(error); }
    if (!signal.aborted) setTimeout(turn, milliseconds);
  };
  turn();
}

function showUser(root, signal, state) {
  const note = el("p", { class: "quiet", hidden: true }, word("unknownUser"));
  const chart = el("div", { class: "chart" }), legend = el("ul", { class: "legend small" });
  const slots = el("div", { class: "slots" }), list = el("ol", { class: "list" }), history = el("div", { class: "scroll", tabindex: "0" });
  const undo = el("button", { type: "button", hidden: true }, word("takeBack"));
  const scenes = el("select", { id: "scene", onchange: (event) => go(state.user, event.target.value) });
  const whatIf = el("section", { class: "half" });
  const text = state.scene ? `?scene=${enc(state.scene)}` : "";
  root.append(
    el("section", { class: "half" }, el("h2", {}, word("overTime")), note, chart, legend),
    el("section", { class: "half" }, el("h2", {}, word("interestsNow")), slots),
    el("section", { class: "half" }, el("div", { class: "row" }, el("h2", {}, word("list")),
      el("label", { for: "scene" }, word("scene")), scenes, undo), list),
    whatIf,
    el("section", {}, el("h2", {}, word("history")), history));

  const refresh = async () => {
    try {
      const [interests, past] = await Promise.all([
        ask(`/users/${enc(state.user)}/interests`, { signal }), ask(`/users/${enc(state.user)}/history`, { signal })]);
      note.hidden = true;
      drawInterests(state, interests, slots, chart, legend);
      drawHistory(past, history);
      const names = [...new Set([state.scene, ...past.history.map((event) => event.scene)].filter(Boolean))].sort();
      fill(scenes, el("option", { value: "" }, word("noScene")), ...names.map((name) => el("option", { value: name, selected: name === state.scene }, name)));
    } catch (error) {
      if (error.status === 404) { note.hidden = false; fill(scenes, el("option", { value: "" }, word("noScene"))); } else tell(error);
    }
  };
  const show = (answer) => { drawList(state, answer, list, send, signal); refresh(); };

  const send = async (kind, item) => {
    const id = `page-${crypto.randomUUID()}`;
    const event = { user_id: state.user, item_id: item.item_id, kind: KINDS[kind], event_id: id };
    if (state.scene) event.scene = state.scene;
    if (await post(event)) {
      say(word("sent", { kind: word(kind), item: item.item_id }));
      undo.hidden = false;
      undo.onclick = async () => {
        if (await post({ user_id: state.user, retracts: id })) { say(word("tookBack")); undo.hidden = true; }
      };
    }
  };
  const post = async (event) => {
    try {
      const { events: [outcome] } = await ask("/events", { body: { events: [event] }, signal });
      if (outcome.reason) say(`${outcome.reason}: ${outcome.message}`);
      return !outcome.reason;
    } catch (error) { tell(error); return false; }
  };

  ask(`/users/${enc(state.user)}/recommendations${text}`, { signal }).then(show).catch(tell);
  every(1000, signal, () => follow(`/users/${enc(state.user)}/stream${text}`, signal, show));
  every(10000, signal, refresh);
  showWhatIf(whatIf, state, signal);
}

function drawInterests(state, { interests, time }, slots, chart, legend) {
  fill(slots, ...interests.map((interest, n) => el("article", { class: "slot" },
    el("div", { class: "head" }, el("h3", {}, interest.label || "–"), el("span", { class: "number" }, percent(interest.strength)),
      el("span", { class: `number small ${interest.change < 0 ? "down" : "up"}` }, `${signed(interest.change)} ${word("dayChange")}`)),
    el("div", { class: "bar" }, el("span", { style: { width: `${100 * interest.strength}%`, background: colour(labelIndex(state, interest.label)) } })),
    el("div", { class: "quiet small" }, `${word("age")}: ${duration(interest.age_seconds)} · ${word("events")}: ${number(interest.events)}`),
    el("div", { class: "small" }, `${word("typical")}: ${interest.typical_item}`),
    el("div", { class: "small quiet" }, `${word("recent")}: ${interest.items.join(", ") || "–"}`))));
  const now = Date.now() / 1000;
  state.times.push(state.times.length && now - state.times.at(-1) < 0.5 ? state.times.at(-1) + 0.5 : now);
  const at = state.times.length - 1;
  for (const { label, strength } of interests) {
    labelIndex(state, label);
    state.shares[label][at] = (state.shares[label][at] ?? 0) + strength;
  }
  if (state.times.length > MOMENTS) {
    state.times.shift();
    for (const label of state.labels) state.shares[label].shift();
  }
  const said = interests.map(({ label, strength }) => `${label} ${percent(strength)}`).join(", ");
  const times = state.times.length > 1 ? state.times : [state.times[0] - 1, state.times[0]];
  const shares = state.times.length > 1 ? state.shares : Object.fromEntries(state.labels.map((label) => [label, [state.shares[label][0], state.shares[label][0]]]));
  stack(chart, times, state.labels, shares, `${word("overTime")}: ${said}`);
  fill(legend, ...state.labels.map((label, n) => el("li", {}, el("span", { class: "dot", style: { background: colour(n) } }), label || "–")));
}

function labelIndex(state, label) {
  if (!(label in state.shares)) { state.labels.push(label); state.shares[label] = []; }
  return state.labels.indexOf(label);
}

/** The items that speak for another one, each once, with its share. */
function because(item) {
  const shares = new Map();
  for (const one of item.because ?? []) shares.set(one.item_id, (shares.get(one.item_id) ?? 0) + one.share);
  return [...shares].map(([id, share]) => `${id} ${percent(share)}`).join(", ");
}

function drawList(state, answer, list, send, signal) {
  const before = state.places;
  state.places = new Map(answer.items.map((item, n) => [item.item_id, n]));
  state.list = answer;
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const whys = new Map(); // an explanation stays open while its item stays in the list
  fill(list, ...answer.items.map((item, n) => {
    const was = before?.get(item.item_id);
    const move = !before || was === n ? null : was === undefined ? "isNew" : was > n ? "up" : "down";
    const sign = { isNew: "★", up: "▲", down: "▼" }[move];
    const why = state.whys.get(item.item_id) ?? el("div", { class: "small", hidden: true });
    whys.set(item.item_id, why);
    return el("li", { class: move ? "moved" : "", "data-item": item.item_id },
      el("div", { class: "head" }, el("span", { class: "place number" }, number(n + 1)),
        el("h3", {}, item.item_id), item.label ? el("span", { class: "quiet small" }, item.label) : null,
        el("span", { class: "tag" }, item.channel), item.demoted ? el("span", { class: "tag" }, word("known")) : null,
        item.probability == null ? null : el("span", { class: "number small" }, percent(item.probability, 1)),
        move ? el("span", { class: `small ${move === "isNew" ? "new" : move}` }, `${sign} ${word(move)}`) : null),
      el("div", { class: "small quiet" }, [item.interest, item.because?.length ? `${word("because")} ${because(item)}` : null,
        item.earlier ? `${word("earlier")} ${percent(item.earlier)}` : null].filter(Boolean).join(" · ")),
      el("div", { class: "row" }, ...Object.keys(KINDS).map((kind) => el("button", { type: "button", onclick: () => send(kind, item),
        "aria-label": `${word(kind)}: ${item.item_id}` }, word(kind))),
        el("button", { type: "button", "aria-label": `${word("why")} ${item.item_id}`, onclick: () => explain(state, item, why, signal) }, word("why"))),
      why);
  }));
  state.whys = whys;
  if (focused) list.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

async function explain(state, item, place, signal) {
  if (!place.hidden) { place.hidden = true; return; }
  try {
    const scene = state.scene ? `&scene=${enc(state.scene)}` : "";
    const answer = await ask(`/users/${enc(state.user)}/why/${enc(item.item_id)}?explain=parts${scene}`, { signal });
    const groups = Object.entries(answer.item?.parts?.groups ?? {}).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    fill(place, el("ul", {}, ...answer.steps.map((step) => el("li", {}, `${step.passed ? "✓" : "✗"} ${step.step}: ${step.detail}`))),
      groups.length ? bars(groups.map(([name, value]) => [name, Math.abs(value)]), (value) => number(value, 3)) : null, answer.remedy || null);
    place.hidden = false;
  } catch (error) { tell(error); }
}

function drawHistory({ history }, place) {
  fill(place, el("table", {}, el("thead", {}, el("tr", {}, ...["when", "kind", "item", "scene", "weight"].map((name) => el("th", { scope: "col", class: name === "weight" ? "number" : "" }, word(name))))),
    el("tbody", {}, ...history.map((event) => el("tr", {}, el("td", {}, moment(event.time)),
      el("td", {}, `${event.kind ?? "–"}${event.retracted ? ` (${word("retracted")})` : ""}`),
      el("td", {}, event.label ? `${event.item_id} · ${event.label}` : event.item_id), el("td", {}, event.scene ?? "–"), el("td", { class: "number" }, number(event.weight, 2)))))));
}

function showWhatIf(root, state, signal) {
  const out = el("div", {}), sliders = el("div", { class: "sliders" });
  const values = {}, changed = new Set();
  let waiting = null;
  const add = (name, label, min, max, step, value) => {
    const shown = el("output", { class: "number small", for: `slider-${name}` }, number(value, 2));
    values[name] = value;
    sliders.append(el("label", { for: `slider-${name}` }, label),
      el("input", { type: "range", id: `slider-${name}`, min: Math.min(min, value), max: Math.max(max, value), step, value, oninput: (event) => {
        values[name] = Number(event.target.value); changed.add(name); shown.textContent = number(values[name], 2);
        clearTimeout(waiting); waiting = setTimeout(run, 250);
      } }), shown);
  };
  ask("/workers", { signal }).then(({ weights, diversity }) => {
    add("diversity", word("diversity"), 0, 1, 0.05, diversity);
    for (const kind of SLIDERS) if (kind in weights) add(kind, kind, -3, 5, 0.1, weights[kind]);
  }).catch(tell);
  const run = async () => {
    const { diversity, ...weights } = values;
    const body = { weights: Object.fromEntries(Object.entries(weights).filter(([kind]) => changed.has(kind))) };
    if (changed.has("diversity")) body.diversity = diversity;
    if (state.scene) body.scene = state.scene;
    try {
      const answer = await ask(`/users/${enc(state.user)}/what-if`, { body, signal });
      const moves = answer.moves.filter((move) => move.before !== move.after);
      fill(out, el("p", { class: "small quiet" }, word("older", { share: percent(answer.older) })),
        moves.length ? el("table", {}, el("thead", {}, el("tr", {}, ...["item", "before", "after", "why"].map((name) => el("th", { scope: "col" }, word(name))))),
          el("tbody", {}, ...moves.map((move) => el("tr", {}, el("td", {}, move.item_id),
            el("td", { class: "number" }, number(move.before)), el("td", { class: "number" }, number(move.after)), el("td", { class: "small" }, move.why)))))
          : el("p", {}, word("same")));
    } catch (error) { tell(error); }
  };
  root.append(el("h2", {}, word("whatIf")), el("p", { class: "small quiet" }, word("whatIfText")), sliders, out);
}
