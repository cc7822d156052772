// One item: its text, what everybody said of it, and deciding its label.

import { get, path, put } from "./api.js";
import { count, h, plural, when } from "./dom.js";
import { closed, frame, may, to } from "./frame.js";
import { annotatorOf } from "./memory.js";
import { announce, card, facts, field, form, table, tag, tick } from "./ui.js";

const SAID = { label: "label", skip: "skipped", unsure: "unsure", retract: "taken back" };

export async function itemView(context, { pool: name, item: id }) {
  const where = path("v1", "pools", name);
  const [pool, item, history] = await Promise.all([
    get(where, context),
    get(`${where}/${path("items", id)}`, context),
    get(`${where}/${path("history", id)}`, context),
  ]);
  return frame(
    name,
    null,
    `Item ${id}`,
    h(
      "section",
      { class: "card" },
      h("div", { class: "item-text", tabindex: "0", role: "region", "aria-label": "Text" }, item.text),
      fields(item),
    ),
    facts([
      [
        "Label",
        item.label === null
          ? h("span", { class: "soft" }, item.conflict ? "open: annotators disagree" : "none yet")
          : tag(item.label, "good"),
      ],
      ["Labels given", count(item.n_votes)],
    ]),
    card(
      "Say what it is",
      may(context, "label") ? decision(context, pool, item, where) : closed(context, "label", "label items"),
    ),
    card("What was said", history.length === 0 ? h("p", {}, "Nothing yet.") : said(history)),
    h("p", {}, h("a", { href: to("pools", name) }, `Back to ${name}`)),
  );
}

function fields(item) {
  const pairs = Object.entries({ ...item.fields, ...item.metadata });
  if (pairs.length === 0) return null;
  const written = (value) =>
    value !== null && typeof value === "object" ? JSON.stringify(value) : String(value ?? "");
  return h(
    "details",
    {},
    h("summary", {}, plural(pairs.length, "field")),
    h(
      "dl",
      { class: "fields" },
      pairs.map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, written(value)))),
    ),
  );
}

function decision(context, pool, item, where) {
  const annotator = h("input", {
    type: "text",
    required: true,
    maxlength: 200,
    autocomplete: "nickname",
    value: annotatorOf(context),
  });
  const words = pool.label_words;
  const label = words
    ? h(
        "select",
        { required: true },
        h("option", { value: "" }, "choose"),
        words.map((word) => h("option", { value: word, selected: word === item.label }, word)),
      )
    : h("input", { type: "text", required: true, maxlength: 20000, value: item.label ?? "", autocomplete: "off" });
  const final = h("input", { type: "checkbox", checked: item.conflict });
  const send = async () => {
    const word = { id: item.id, label: label.value, annotator: annotator.value.trim(), adjudicated: final.checked };
    const done = await put(`${where}/labels`, { labels: [word] });
    announce(done.written > 0 ? `“${label.value}” is saved` : "That was said before; nothing changed");
    await context.refresh();
  };
  return form(
    [field("Label", label), field("Your name", annotator), tick("Final: it counts whatever others said", final)],
    "Save",
    send,
  );
}

function said(history) {
  const columns = [
    { title: "Who", cell: (word) => word.annotator },
    {
      title: "What",
      cell: (word) => [
        word.label === null ? h("span", { class: "soft" }, SAID[word.status]) : tag(word.label),
        word.adjudicated && [" ", tag("final", "good")],
      ],
    },
    { title: "When", cell: (word) => when(word.created_at) },
    { title: "Version of labels", kind: "right", cell: (word) => count(word.version) },
  ];
  return table("Everything that was said of this item", columns, [...history].reverse());
}
