// Requests to the worker: the token, errors in words, and a stream of events by fetch.

export class Problem extends Error {
  constructor(status, detail, retry) { super(detail); this.status = status; this.retry = retry; }
}

const token = () => sessionStorage.getItem("token");
export const keepToken = (text) => sessionStorage.setItem("token", text);

function headers(more = {}) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : more;
}

async function failure(response) {
  let detail = response.statusText;
  try { detail = (await response.json()).detail ?? detail; } catch { /* no problem in JSON */ }
  return new Problem(response.status, detail, Number(response.headers.get("Retry-After")) || null);
}

export async function ask(path, { body, signal } = {}) {
  const options = { headers: headers(), signal };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = headers({ "Content-Type": "application/json" });
    if (body !== null) options.body = JSON.stringify(body);
  }
  const response = await fetch(`v1${path}`, options);
  if (!response.ok) throw await failure(response);
  return response.json();
}

export async function askText(path) {
  const response = await fetch(path);
  if (!response.ok) throw await failure(response);
  return response.text();
}

/** The reasons why the worker is not alive, and why it is not ready; none if all is well. */
export async function askHealth() {
  const [live, ready] = await Promise.all(["healthz", "readyz"].map(async (path) => (await (await fetch(path)).json()).reasons ?? []));
  return { live, waits: ready.filter((reason) => !live.includes(reason)) };
}

export const enc = encodeURIComponent;

/** Read server-sent events and call `onMessage` with each message; ends with the signal. */
export async function follow(path, signal, onMessage) {
  const response = await fetch(`v1${path}`, { headers: headers({ Accept: "text/event-stream" }), signal });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.search(/\r?\n\r?\n/)) >= 0) {
      const lines = text.slice(0, end).split(/\r?\n/);
      text = text.slice(end).replace(/^(\r?\n){2}/, "");
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) onMessage(JSON.parse(data.join("\n")));
    }
  }
}
