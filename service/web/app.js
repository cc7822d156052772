// The shell: which view the address names, who looks, and what waits to be sent.

import { agreementView } from "./agreement.js";
import { get, Problem } from "./api.js";
import { fill, h, plural } from "./dom.js";
import { itemView } from "./item.js";
import { labelChoice, labelView } from "./label.js";
import { keptView, outbox } from "./outbox.js";
import { newPoolView, poolsView } from "./pools.js";
import { poolView } from "./pool.js";
import { promptView, rebuiltView } from "./prompt.js";
import { densityView, evaluationView } from "./reports.js";
import { selectionView } from "./selections.js";
import { announce, empty, linkButton, problemBox } from "./ui.js";

// A part that begins with ":" stands for anything.
const ROUTES = [
  ["pools", poolsView],
  ["new", newPoolView],
  ["kept", keptView],
  ["prompts/:id", rebuiltView],
  ["pools/:pool", poolView],
  ["pools/:pool/label", labelChoice],
  ["pools/:pool/label/:selection", labelView],
  ["pools/:pool/selections/:selection", selectionView],
  ["pools/:pool/items/:item", itemView],
  ["pools/:pool/prompt", promptView],
  ["pools/:pool/density", densityView],
  ["pools/:pool/agreement", agreementView],
  ["pools/:pool/evaluation", evaluationView],
];

const main = document.getElementById("main");
const service = { session: null, info: null };
let leaving = new AbortController();

function find(hash) {
  let parts;
  try {
    parts = hash
      .replace(/^#?\/?/, "")
      .split("/")
      .filter(Boolean)
      .map(decodeURIComponent);
  } catch {
    return null; // a percent sign that escapes nothing
  }
  for (const [pattern, view] of ROUTES) {
    const wanted = pattern.split("/");
    if (wanted.length !== parts.length) continue;
    if (wanted.every((name, place) => name.startsWith(":") || name === parts[place])) {
      const named = wanted.map((name, place) => [name, parts[place]]).filter(([name]) => name.startsWith(":"));
      return { view, params: Object.fromEntries(named.map(([name, value]) => [name.slice(1), value])) };
    }
  }
  return null;
}

/** Show what the address names. What the view before has begun is stopped. */
async function show() {
  if (!location.hash || location.hash === "#/") return location.replace("#/pools");
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const found = find(location.hash);
  main.setAttribute("aria-busy", "true");
  const waiting = setTimeout(() => fill(main, h("p", { class: "loading" }, "Loading…")), 300);
  let content;
  try {
    await known();
    const context = { signal, ...service, refresh: show };
    content = found ? await found.view(context, found.params) : lost();
  } catch (problem) {
    if (signal.aborted) return undefined;
    content = problem instanceof Problem ? failed(problem) : broken(problem);
  } finally {
    clearTimeout(waiting);
  }
  if (signal.aborted) return undefined;
  fill(main, content);
  main.removeAttribute("aria-busy");
  main.dataset.shows = location.hash;
  const heading = main.querySelector("h1");
  document.title = heading ? `${heading.textContent} · icl-select` : "icl-select";
  return settle(heading);
}

/** Where a view does not set the focus itself, its heading gets it, so that the keyboard goes on from there. */
function settle(heading) {
  scrollTo(0, 0);
  const wanted = main.querySelector("[data-focus]") ?? heading;
  if (!wanted) return;
  if (wanted === heading) heading.tabIndex = -1;
  wanted.focus({ preventScroll: true });
}

async function known() {
  if (service.session) return;
  const [session, info] = await Promise.all([get("web/session"), get("info")]);
  Object.assign(service, { session, info });
  fill(document.getElementById("who"), session.closed && `${session.name} · scope ${session.scope}`);
  fill(
    document.getElementById("foot"),
    `icl-select ${info.version} · ${info.database} · `,
    h("a", { href: "openapi.json" }, "HTTP interface"),
  );
}

function lost() {
  return h(
    "div",
    {},
    h("h1", {}, "No such page"),
    empty("Nothing is here", "The address names no view of this page.", linkButton("All pools", "#/pools", true)),
  );
}

function failed(problem) {
  const title = problem.status === 404 ? "Nothing is here" : "This cannot be shown now";
  return h(
    "div",
    {},
    h("h1", {}, title),
    problemBox(problem, show),
    h("p", {}, h("a", { href: "#/pools" }, "All pools")),
  );
}

function broken(error) {
  console.error(error);
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-title" }, "This page has a fault"),
    h("p", {}, `It cannot show this view: ${error}. Load it again; nothing that you sent is lost.`),
  );
}

function showKept() {
  const { waiting, refused } = outbox.counts();
  const link = document.getElementById("kept");
  link.hidden = refused === 0 && (waiting === 0 || !outbox.problem); // what is on its way is no news
  link.classList.toggle("bad", refused > 0);
  link.textContent = refused > 0 ? `${plural(refused, "label")} refused` : `${plural(waiting, "label")} to be sent`;
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
addEventListener("click", (event) => {
  // A link to where we are already means: show it anew.
  if (event.target.closest?.("a")?.getAttribute("href") === location.hash) show();
});
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") return event.preventDefault();
  return announce(`This page has a fault: ${event.reason}. Load it again.`);
});
outbox.listen(showKept);
outbox.start();
show();
