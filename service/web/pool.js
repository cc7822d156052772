// One pool: what it holds, what runs, what to do next.

import { get, patch, path, post, remove } from "./api.js";
import { count, fill, h, percent, plural } from "./dom.js";
import { closed, embedded, frame, may, to } from "./frame.js";
import { ended, outcome, running, runs, watch } from "./jobs.js";
import { wordsOf } from "./pools.js";
import { askForm, selectionsTable } from "./selections.js";
import { uploadForm } from "./upload.js";
import { action, announce, bar, card, empty, facts, field, form, linkButton, notice } from "./ui.js";

export async function poolView(context, { pool: name }) {
  const where = path("v1", "pools", name);
  const load = () => Promise.all([get(where, context), get(`${where}/selections?limit=100`, context)]);
  let [pool, { selections }] = await load();
  let jobs = [];
  const admin = may(context, "admin");

  const next = h("div", {});
  const numbers = h("div", {});
  const work = h("div", { class: "work" });
  const past = h("div", {});
  const list = h("div", {});

  const [ask, suggest] = askForm(pool, context, () => changed());

  const draw = () => {
    fill(next, nextStep(pool, selections, jobs, admin, look));
    fill(numbers, numbersOf(pool));
    fill(list, selections.length > 0 ? selectionsTable(pool, selections) : none(pool));
    suggest(pool);
  };
  const reload = async () => {
    [pool, { selections }] = await load();
    draw();
  };
  const look = watch(name, context.signal, async (found, over) => {
    const begun = found.length > 0 && found[0].id !== jobs[0]?.id;
    jobs = found;
    for (const job of over) announce(outcome(job));
    drawWork(work, jobs.filter(runs), admin);
    drawPast(
      past,
      jobs.filter((job) => !runs(job)),
    );
    if (over.length > 0 || begun) await reload();
  });
  const changed = async () => {
    await reload();
    await look();
  };

  draw();
  const forms = [card("Ask what to label", ask), card("Add items", uploadForm(name, context, changed))];
  return frame(
    name,
    "",
    name,
    next,
    numbers,
    work,
    admin
      ? h("div", { class: "grid" }, pool.n_items ? forms : forms.reverse())
      : closed(context, "admin", "add items, or ask what to label"),
    card("Selections", list),
    h(
      "div",
      { class: "grid loose" },
      card("Files", filesOf(pool), past),
      card("Settings", admin ? settings(pool, where, reload) : settingsOf(pool)),
    ),
  );
}

function drawWork(place, jobs, admin) {
  const focused = place.contains(document.activeElement);
  const rows = jobs.map((job) => running(job, admin));
  fill(place, jobs.length > 0 && card("At work", h("ul", { class: "plain" }, rows)));
  if (focused) place.querySelector("button")?.focus();
}

function drawPast(place, jobs) {
  const open = place.querySelector("details")?.open ?? false;
  fill(place, jobs.length > 0 && h("details", { open }, h("summary", {}, "Earlier jobs"), ended(jobs)));
}

/** The one thing to do now. */
function nextStep(pool, selections, jobs, admin, look) {
  const say = (title, text, ...actions) =>
    h(
      "div",
      { class: "next" },
      h("div", {}, h("p", { class: "next-title" }, title), h("p", {}, text)),
      h("div", { class: "actions" }, actions),
    );
  const busy = (kind) => jobs.some((job) => job.kind === kind && runs(job));
  if (!pool.n_items)
    return say("Next: add your texts", "Upload a file of rows below. Rows may have labels already, or none.");
  if (busy("select"))
    return say("The items to label are being chosen", "This page shows them as soon as they are there.");
  const open = selections.find((made) => made.state === "done" && made.n_labelled < made.budget);
  if (open) {
    const left = open.budget - open.n_labelled;
    return say(
      `Next: label ${plural(left, "item")}`,
      "They come one after another, the most useful first.",
      linkButton("Label", to("pools", pool.name, "label", open.id), true),
    );
  }
  if (pool.n_labelled > 0) {
    return say(
      "Ready for prompts",
      `${plural(pool.n_labelled, "labelled item")} can stand in prompts as examples.`,
      linkButton("Write a prompt", to("pools", pool.name, "prompt"), true),
    );
  }
  if ((pool.embedding?.n_items ?? 0) < pool.n_items) {
    if (busy("embed"))
      return say("The items are being embedded", "You can ask what to label now; it will wait for the vectors.");
    const start = async () => {
      await post(`${path("v1", "pools", pool.name)}/embeddings`);
      await look();
    };
    return say(
      "Next: embed the items",
      "Vectors say which texts are alike. Selections make them where they are missing.",
      admin && action("Embed now", start, "primary"),
    );
  }
  return say("Next: ask what to label", "Say how many labels you can pay for, and get the items that are worth them.");
}

function numbersOf(pool) {
  return facts([
    ["Items", count(pool.n_items)],
    ["Labelled", bar(pool.n_labelled, pool.n_items, "Labelled items")],
    ["Vectors", embedded(pool)],
    [
      "Encoder",
      h("code", {}, pool.encoder),
      pool.embedding && h("span", { class: "small" }, `${count(pool.embedding.dim)} dimensions`),
    ],
    ["Versions", `items ${count(pool.version)} · labels ${count(pool.labels_version)}`],
    ...(pool.embedding?.truncated
      ? [
          [
            "Cut by the encoder",
            `${plural(pool.embedding.truncated, "item")} (${percent(pool.embedding.truncated / pool.embedding.n_items, 1)})`,
          ],
        ]
      : []),
  ]);
}

function none(pool) {
  if (!pool.n_items) return empty("No selections yet", "Add items first; then ask which of them to label.");
  return empty("No selections yet", "Ask above which items to label.");
}

function filesOf(pool) {
  const where = path("v1", "pools", pool.name);
  const file = (text, href, name) => h("li", {}, h("a", { href, download: name }, text));
  return h(
    "ul",
    { class: "plain" },
    file("Labels as CSV", `${where}/labels/export?format=csv`, `${pool.name}-labels.csv`),
    file("Labels as JSON Lines", `${where}/labels/export?format=jsonl`, `${pool.name}-labels.jsonl`),
    file("Every annotator’s labels as CSV", `${where}/labels/export?format=csv&votes=true`, `${pool.name}-votes.csv`),
    file("The pool with its labels as JSON Lines", `${where}/export`, `${pool.name}.jsonl`),
  );
}

function settingsOf(pool) {
  return facts([
    ["Text", h("code", {}, pool.text ?? "text")],
    ["Label words", pool.label_words ? pool.label_words.join(" · ") : "free text"],
    ["Labels for each item", count(pool.annotators)],
  ]);
}

function settings(pool, where, reload) {
  const words = h("textarea", {
    rows: Math.min(8, (pool.label_words?.length ?? 1) + 1),
    spellcheck: "false",
    value: pool.label_words?.join("\n") ?? "",
  });
  const annotators = h("input", { type: "number", min: 1, max: 100, required: true, value: String(pool.annotators) });
  const save = async () => {
    await patch(where, { label_words: wordsOf(words.value), annotators: Number(annotators.value) });
    await reload();
    announce("Saved");
  };
  return h(
    "div",
    {},
    h("p", {}, "Text: ", h("code", {}, pool.text ?? "text")),
    form(
      [
        field("Label words", words, "One on each line. Empty: free text."),
        field("Labels wanted for each item", annotators),
      ],
      "Save",
      save,
      { quiet: true },
    ),
    h("details", { class: "danger" }, h("summary", {}, "Delete this pool"), deletion(pool, where)),
  );
}

function deletion(pool, where) {
  const name = h("input", { type: "text", autocomplete: "off", spellcheck: "false", required: true });
  const send = async (outcome) => {
    if (name.value.trim() !== pool.name) {
      fill(outcome, notice("That is not the name of this pool. Nothing was deleted."));
      return;
    }
    await remove(where);
    announce(`The pool ${pool.name} is deleted`);
    location.hash = "#/pools";
  };
  const lost = `${plural(pool.n_items, "item")} and ${plural(pool.n_labelled, "label")} go with it, and its selections and prompts. There is no way back.`;
  return form([h("p", {}, lost), field(`Write its name to delete it`, name)], "Delete for ever", send, { quiet: true });
}
