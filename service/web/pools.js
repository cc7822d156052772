// All pools, and making one.

import { get, post } from "./api.js";
import { closed, embedded, may, to } from "./frame.js";
import { count, h, when } from "./dom.js";
import { announce, bar, card, empty, field, form, linkButton, pages, table, tick } from "./ui.js";

const COLUMNS = [
  { title: "Pool", cell: (pool) => h("a", { href: to("pools", pool.name) }, pool.name) },
  { title: "Items", kind: "right", cell: (pool) => count(pool.n_items) },
  { title: "Labelled", cell: (pool) => bar(pool.n_labelled, pool.n_items, `Labelled items of ${pool.name}`) },
  { title: "Encoder", cell: (pool) => h("code", {}, pool.encoder) },
  { title: "Vectors", cell: embedded },
  { title: "Made", cell: (pool) => when(pool.created_at) },
];

export async function poolsView(context) {
  const load = async (after) => {
    const page = await get(`v1/pools?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`, context);
    return { rows: page.pools, next: page.next };
  };
  const first = await load(null);
  const make = may(context, "admin") && linkButton("New pool", "#/new", true);
  return h(
    "div",
    {},
    h(
      "div",
      { class: "head" },
      h(
        "div",
        {},
        h("h1", {}, "Pools"),
        h("p", { class: "lead" }, "A pool holds your texts. A few of them get labels; prompts are made from those."),
      ),
      first.rows.length > 0 && make,
    ),
    first.rows.length === 0
      ? none(context, make)
      : pages(first, load, (rows) => h("section", { class: "card" }, table("Pools", COLUMNS, rows))),
  );
}

function none(context, make) {
  if (!make) return empty("No pools yet", "Somebody whose key has the scope admin makes them.");
  return empty("No pools yet", "Make a pool, upload your texts, and ask which of them to label first.", make);
}

export async function newPoolView(context) {
  const head = [h("p", { class: "crumbs" }, h("a", { href: "#/pools" }, "Pools")), h("h1", {}, "New pool")];
  if (!may(context, "admin")) return h("div", {}, head, closed(context, "admin", "make a pool"));
  const name = h("input", {
    type: "text",
    required: true,
    maxlength: 64,
    pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*",
    autocomplete: "off",
    spellcheck: "false",
    "data-focus": true,
  });
  const text = h("input", { type: "text", placeholder: "text", autocomplete: "off", spellcheck: "false" });
  const words = h("textarea", { rows: 4, spellcheck: "false" });
  const annotators = h("input", { type: "number", min: 1, max: 100, value: "1", required: true });
  const encoder = h(
    "select",
    {},
    context.info.encoders.map((one, place) => h("option", { value: one }, place === 0 ? `${one} (default)` : one)),
  );
  const idField = h("input", { type: "text", placeholder: "id", autocomplete: "off", spellcheck: "false" });
  const labelField = h("input", { type: "text", placeholder: "label", autocomplete: "off", spellcheck: "false" });
  const resolve = h(
    "select",
    {},
    h("option", { value: "majority" }, "the label most annotators gave"),
    h("option", { value: "latest" }, "the latest label"),
  );
  const centre = h("input", { type: "checkbox", checked: true });

  const send = async () => {
    const body = {
      name: name.value.trim(),
      text: text.value.trim() || null,
      label_words: wordsOf(words.value),
      annotators: Number(annotators.value),
      encoder: encoder.value,
      id_field: idField.value.trim() || null,
      label_field: labelField.value.trim() || null,
      resolve: resolve.value,
      centre: centre.checked,
    };
    const pool = await post("v1/pools", body);
    announce(`The pool ${pool.name} is made. Upload its items next.`);
    location.hash = to("pools", pool.name);
  };

  const more = h(
    "details",
    {},
    h("summary", {}, "More settings"),
    field("Encoder", encoder, "What turns texts into vectors. It stays with the pool."),
    field(
      "Field with the id",
      idField,
      "Left empty: the field id where rows have one, else a name made from the content.",
    ),
    field("Field with labels", labelField, "Rows that have a label already keep it. Left empty: the field label."),
    field("Where annotators disagree, count", resolve),
    tick(
      "Centre the vectors",
      centre,
      "Takes off what all texts have in common, so that differences count. Best left on.",
    ),
  );
  return h(
    "div",
    { class: "narrow" },
    head,
    card(
      "What it holds",
      form(
        [
          field("Name", name, "Letters, digits, dot, hyphen and underscore. It cannot be changed later."),
          field(
            "Text",
            text,
            "The field of your rows that counts, or a template of fields such as {subject}: {body}. Left empty: the field text.",
          ),
          field(
            "Label words",
            words,
            "One on each line, in the order of their buttons. Left empty: labels are free text.",
          ),
          field(
            "Labels wanted for each item",
            annotators,
            "More than one, and several people label the same items; their agreement is reported.",
          ),
          more,
        ],
        "Make the pool",
        send,
      ),
    ),
  );
}

/** Lines of a text as label words; null where there are none. */
export function wordsOf(text) {
  const found = [
    ...new Set(
      text
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean),
    ),
  ];
  return found.length > 0 ? found : null;
}
