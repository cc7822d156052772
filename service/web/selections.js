// Selections: asked for, listed, and one of them with its picks.

import { get, path, post } from "./api.js";
import { clipped, count, decimal, h, plural, when } from "./dom.js";
import { frame, may, to } from "./frame.js";
import { stateTag } from "./jobs.js";
import {
  action,
  announce,
  bar,
  card,
  empty,
  facts,
  field,
  form,
  linkButton,
  notice,
  pages,
  table,
  tag,
  tick,
} from "./ui.js";

const BUDGET = 50;

// What the methods of the package go by; others show their name alone.
const ABOUT = {
  max_herding: "texts that stand for many others (default)",
  vote_k: "texts with many neighbours, spread out",
  ideal: "texts whose influence reaches far",
  sub_sa: "close to the pool, far from each other",
  random: "by chance: the baseline",
};

/** The form that asks for a selection, and what tells it that the pool is another one now. */
export function askForm(pool, context, changed) {
  const names = [...context.info.methods].sort((a, b) => (b === "max_herding") - (a === "max_herding"));
  const method = h(
    "select",
    {},
    names.map((name) => h("option", { value: name }, ABOUT[name] ? `${name}: ${ABOUT[name]}` : name)),
  );
  const budget = h("input", { type: "number", min: 1, max: context.info.limits.budget, required: true });
  let suggested = "";
  const suggest = ({ n_items: items, n_labelled: labels }) => {
    if (budget.value !== suggested) return; // somebody has chosen
    suggested = String(Math.max(1, Math.min(BUDGET, (items || BUDGET) - labels)));
    budget.value = suggested;
  };
  suggest(pool);
  const params = h("input", { type: "text", placeholder: "bandwidth=1.0", autocomplete: "off", spellcheck: "false" });
  const seed = h("input", { type: "number", min: 0, value: "0", required: true });
  const ignore = h("input", { type: "checkbox" });
  const send = async () => {
    const inner = params.value.trim();
    const body = {
      method: inner ? `${method.value}(${inner})` : method.value,
      budget: Number(budget.value),
      seed: Number(seed.value),
      ignore_labels: ignore.checked,
    };
    await post(`${path("v1", "pools", pool.name)}/selections`, body);
    announce(`${plural(body.budget, "item")} are being chosen`);
    await changed();
  };
  const element = form(
    [
      field("How many labels can you pay for?", budget),
      field("Method", method),
      h(
        "details",
        {},
        h("summary", {}, "More settings"),
        field("Parameters of the method", params, "As name=value, several with commas. Left empty: its defaults."),
        field("Seed", seed, "The same seed gives the same items."),
        tick(
          "Choose as if nothing was labelled yet",
          ignore,
          "Else labelled items count as covered and are not chosen again.",
        ),
      ),
    ],
    "Choose items",
    send,
  );
  return [element, suggest];
}

export function selectionsTable(pool, selections) {
  const address = (made) => to("pools", pool.name, "selections", made.id);
  const columns = [
    { title: "Asked for", cell: (made) => h("a", { href: address(made) }, when(made.created_at)) },
    { title: "Method", cell: (made) => h("code", {}, made.method) },
    { title: "State", cell: (made) => stateTag(made.state) },
    {
      title: "Labelled",
      cell: (made) =>
        made.state === "done" ? bar(made.n_labelled, made.budget, "Labelled picks") : `– of ${count(made.budget)}`,
    },
    {
      title: "",
      cell: (made) =>
        made.state === "done" && made.n_labelled < made.budget
          ? h(
              "a",
              { class: "button small-button", href: to("pools", pool.name, "label", made.id) },
              "Label",
              h("span", { class: "hidden" }, ` the selection ${made.id}`),
            )
          : "",
    },
  ];
  return table("Selections, newest first", columns, selections);
}

const TASKS = [
  ["CSV", "csv", "tasks", "csv"],
  ["JSON Lines", "jsonl", "tasks", "jsonl"],
  ["Label Studio: tasks", "label-studio", "tasks", "json"],
  ["Label Studio: interface", "label-studio", "config", "xml"],
  ["Argilla", "argilla", "tasks", "jsonl"],
  ["Prodigy", "prodigy", "tasks", "jsonl"],
];

export async function selectionView(context, { pool: name, selection: id }) {
  const where = path("v1", "pools", name, "selections", id);
  const load = async (after) => {
    const made = await get(`${where}?limit=100${after === null ? "" : `&after=${after}`}`, context);
    return { made, rows: made.picks, next: made.next };
  };
  const first = await load(null);
  const { made } = first;
  const done = made.state === "done";
  return frame(
    name,
    null,
    `Selection of ${plural(made.budget, "item")}`,
    facts([
      ["State", stateTag(made.state)],
      ["Method", h("code", {}, made.method)],
      ["Seed", count(made.seed)],
      ["Asked for", when(made.created_at)],
      ["Labelled", bar(made.n_labelled, made.budget, "Labelled picks")],
    ]),
    done ? picks(name, made, first, load, where) : waiting(context, made),
  );
}

function picks(name, made, first, load, where) {
  const columns = [
    { title: "Rank", cell: (pick) => count(pick.rank + 1) },
    {
      title: "Text",
      kind: "wide",
      cell: (pick) => h("a", { class: "text-link", href: to("pools", name, "items", pick.id) }, clipped(pick.text)),
    },
    {
      title: "Label",
      cell: (pick) => (pick.label === null ? h("span", { class: "soft" }, "none yet") : tag(pick.label, "good")),
    },
    { title: "Gain", kind: "right", cell: (pick) => decimal(pick.gain, 4) },
  ];
  const files = TASKS.map(([text, format, part, ending]) =>
    h(
      "li",
      {},
      h("a", { href: `${where}/export?format=${format}&part=${part}`, download: `${made.id}.${ending}` }, text),
    ),
  );
  return [
    h(
      "p",
      { class: "actions" },
      made.n_labelled < made.budget
        ? linkButton("Label these", to("pools", name, "label", made.id), true)
        : notice("All of them are labelled."),
    ),
    card(
      "Items, the most useful first",
      pages(first, load, (rows) => table("Picks in the order in which to label them", columns, rows)),
    ),
    card("Where it comes from", nestedText(made), details(made)),
    card(
      "Label them elsewhere",
      h("p", {}, "The same items as tasks for a labelling tool:"),
      h("ul", { class: "inline" }, files),
    ),
  ];
}

function nestedText(made) {
  return h(
    "p",
    {},
    made.nested
      ? "Its first items are the answer to any smaller budget, so you can stop wherever you like."
      : "Its first items are not the answer to a smaller budget: ask again for fewer.",
  );
}

/** Versions of what it was made from, and what the method reports of itself. */
function details(made) {
  const written = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const all = Object.entries({ ...made.made_from, ...made.info }).filter(([, value]) => value !== null);
  return h(
    "details",
    {},
    h("summary", {}, "Versions and figures"),
    h(
      "dl",
      { class: "fields" },
      all.map(([part, value]) => h("div", {}, h("dt", {}, part), h("dd", {}, clipped(written(value), 400)))),
    ),
  );
}

async function cancel(made) {
  await post(`${path("v1", "jobs", made.job)}/cancel`);
  announce("The selection is being stopped");
}

function waiting(context, made) {
  const over = made.state === "failed" || made.state === "cancelled";
  const text = over
    ? "Its job ended without picks. The overview says why, under “Earlier jobs”."
    : "Its items are being chosen. Come back in a moment.";
  const stop = !over && may(context, "admin") && action("Stop it", () => cancel(made));
  return empty(over ? "No items" : "Not ready yet", text, action("Look again", context.refresh), stop);
}
