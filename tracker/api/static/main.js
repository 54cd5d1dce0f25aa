// The page: views by the address, language, theme and token.

import { keepToken } from "./api.js";
import { say } from "./dom.js";
import { itemsView } from "./items.js";
import { userView } from "./user.js";
import { isChinese, otherLanguage, translate, word } from "./words.js";
import { workerView } from "./worker.js";

const VIEWS = { user: userView, items: itemsView, worker: workerView };
const place = document.getElementById("view");
let ending = new AbortController();

function open() {
  const [, name = "user", ...rest] = location.hash.split("/");
  const view = VIEWS[name] ? name : "user";
  ending.abort();
  ending = new AbortController();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  say("");
  document.title = `${word(view)} · ${word("title")}`;
  place.replaceChildren();
  VIEWS[view](place, ending.signal, rest.map(decodeURIComponent));
}

function dress() {
  const button = document.getElementById("language");
  button.textContent = isChinese() ? "English" : "中文";
  button.lang = isChinese() ? "en" : "zh";
  button.setAttribute("aria-label", button.textContent);
  translate();
}

document.getElementById("language").addEventListener("click", () => { otherLanguage(); dress(); open(); });
document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  open();
});
document.getElementById("token").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(document.getElementById("token-text").value);
  document.getElementById("token").hidden = true;
  open();
});
if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme");
window.addEventListener("hashchange", open);
dress();
open();
