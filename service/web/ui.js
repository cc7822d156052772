// Pieces that all views are made of.

import { Problem } from "./api.js";
import { count, fill, h, plural, share } from "./dom.js";

let clearing = 0;

/** Say something in passing: shown for a while, and read out by screen readers; `quiet` for them alone. */
export function announce(text, { quiet = false } = {}) {
  const live = document.getElementById("live");
  live.classList.toggle("quiet", quiet);
  live.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (live.textContent = ""), 6000);
}

/** A problem in full: what the service says, where it points, and the id that the log has too. */
export function problemBox(problem, again = null) {
  if (!(problem instanceof Problem)) throw problem; // a mistake of this page; app.js shows it as one
  const others = problem.errors.length > 1 ? problem.errors : [];
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "problem-title" }, problem.title),
    h("p", {}, problem.detail),
    others.length > 0 &&
      h(
        "ul",
        {},
        others.slice(0, 10).map((one) => h("li", {}, `${one.pointer}: ${one.detail}`)),
      ),
    problem.requestId && h("p", { class: "small" }, "Request ", h("code", {}, problem.requestId)),
    again && h("p", {}, h("button", { type: "button", on: { click: again } }, "Try again")),
  );
}

/** A remark that stands in the page. */
export function notice(...children) {
  return h("div", { class: "notice" }, children);
}

/** What a view shows while there is nothing, and what to do about it. */
export function empty(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "empty-title" }, title),
    h("p", {}, text),
    actions.length > 0 && h("p", { class: "actions" }, actions),
  );
}

export function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), children);
}

/** Numbers with their names: pairs of a name and a value, which may be any nodes. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.map(([name, ...value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A word in a bubble; a long one is cut, and shown in full under the pointer. */
export function tag(text, kind = "") {
  return h("span", { class: `tag ${kind}`, title: text.length > 24 ? text : null }, text);
}

export function linkButton(text, href, primary = false) {
  return h("a", { class: primary ? "button primary" : "button", href }, text);
}

let made = 0;

/** A control with its label and a hint, tied together for screen readers. */
export function field(label, control, hint = null) {
  const id = `field-${(made += 1)}`;
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}

/** A box to tick, with its label behind it. */
export function tick(label, control, hint = null) {
  return h(
    "div",
    { class: "field" },
    h("label", { class: "tick" }, control, h("span", {}, label)),
    hint && h("p", { class: "hint" }, hint),
  );
}

/** A form that sends once, says that it is busy, and shows what went wrong below its button. */
export function form(children, submit, send, { quiet = false } = {}) {
  const button = h("button", { type: "submit", class: quiet ? "" : "primary" }, submit);
  const outcome = h("div", { class: "outcome" });
  const element = h("form", { novalidate: false }, children, h("div", { class: "actions" }, button), outcome);
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    run(button, outcome, send);
  });
  return element;
}

/** A button that does one thing at a time, and shows below itself what went wrong. */
export function action(text, send, kind = "") {
  const outcome = h("span", { class: "outcome" });
  const button = h("button", { type: "button", class: kind }, text);
  button.addEventListener("click", () => run(button, outcome, send));
  return h("span", { class: "action" }, button, outcome);
}

async function run(button, outcome, send) {
  if (button.disabled) return; // the second half of a double click
  const focused = document.activeElement === button;
  button.disabled = true;
  fill(outcome);
  const busy = h("p", { class: "loading", role: "status" }, "Working…");
  const slow = setTimeout(() => outcome.append(busy), 600);
  try {
    await send(outcome);
  } catch (problem) {
    if (problem?.name !== "AbortError") fill(outcome, problemBox(problem));
  } finally {
    clearTimeout(slow);
    busy.remove();
    button.disabled = false;
    if (focused && document.activeElement === document.body) button.focus();
  }
}

/** A bar with what it counts beside it. */
export function bar(done, total, label) {
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: total || 1, value: done, "aria-label": label }),
    h("span", { class: "small" }, total > 0 ? `${count(done)} of ${count(total)} (${share(done, total)})` : "none yet"),
  );
}

/**
 * A table that turns into a list on narrow screens.
 * Columns: `{ title, cell: (row) => node, kind: "right" | "wide" | "" }`; the first one names the row. A `flat` table
 * stays one on narrow screens too.
 */
export function table(caption, columns, rows, shape = "") {
  const head = h(
    "tr",
    {},
    columns.map((column) => h("th", { scope: "col", class: column.kind }, column.title)),
  );
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      columns.map((column, place) =>
        h(
          place === 0 ? "th" : "td",
          { scope: place === 0 ? "row" : null, class: column.kind, "data-label": column.title },
          column.cell(row),
        ),
      ),
    ),
  );
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: shape },
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, head),
      h("tbody", {}, body),
    ),
  );
}

/** A share as a bar with its number. */
export function measure(value, text, label) {
  return h(
    "span",
    { class: "measure" },
    h("meter", { min: 0, max: 1, value: Math.max(0, value), "aria-label": label }),
    h("span", { class: "number" }, text),
  );
}

/** Rows that come page after page: `load(after)` gives `{ rows, next }`, `draw(rows)` all of them. */
export function pages(first, load, draw) {
  const rows = [...first.rows];
  let { next } = first;
  const list = h("div", {}, draw(rows));
  const more = action("Show more", async () => {
    const page = await load(next);
    rows.push(...page.rows);
    next = page.next;
    fill(list, draw(rows));
    more.hidden = next === null;
    announce(`${plural(rows.length, "row")} shown`);
  });
  more.hidden = next === null;
  return h("div", {}, list, more);
}

/** Copy a text; where the browser forbids it (plain HTTP), select it instead. */
export async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied");
  } catch {
    getSelection().selectAllChildren(element);
    announce("Selected: press Ctrl+C to copy");
  }
}
