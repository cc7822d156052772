// What all views of one pool share: its name, the tabs, and what the key may do.

import { path } from "./api.js";
import { count, h } from "./dom.js";
import { notice, tag } from "./ui.js";

const TABS = [
  ["", "Overview"],
  ["label", "Label"],
  ["prompt", "Prompt"],
  ["density", "Density"],
  ["agreement", "Agreement"],
  ["evaluation", "Evaluation"],
];

const SCOPES = ["read", "label", "admin"];

/** The address of a view: `to("pools", name, "label")`. */
export const to = (...parts) => `#/${path(...parts)}`;

/** The view of one pool, under its tabs. */
export function frame(pool, tab, title, ...children) {
  const tabs = TABS.map(([name, text]) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: name ? to("pools", pool, name) : to("pools", pool), "aria-current": tab === name ? "page" : null },
        text,
      ),
    ),
  );
  return h(
    "div",
    {},
    h(
      "p",
      { class: "crumbs" },
      h("a", { href: "#/pools" }, "Pools"),
      h("span", { "aria-hidden": "true" }, " / "),
      h("a", { href: to("pools", pool) }, pool),
    ),
    h("h1", {}, title),
    h("nav", { class: "tabs", "aria-label": `Pool ${pool}` }, h("ul", {}, tabs)),
    children,
  );
}

export const may = (context, scope) => SCOPES.indexOf(context.session.scope) >= SCOPES.indexOf(scope);

/** What stands where somebody may not act. */
export function closed(context, scope, what) {
  return notice(
    `Your key “${context.session.name}” has the scope ${context.session.scope}. To ${what}, use one with the scope ${scope}.`,
  );
}

/** How far a pool is embedded, in a word or two. */
export function embedded(pool) {
  if (!pool.n_items) return tag("no items yet");
  const ready = pool.embedding?.n_items ?? 0;
  if (ready === pool.n_items) return tag("embedded", "good");
  return tag(ready ? `${count(ready)} of ${count(pool.n_items)} embedded` : "not embedded yet", "open");
}
