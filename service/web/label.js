// Labelling: who and what, then one item after another.

import { answers, meant } from "./answers.js";
import { get, path } from "./api.js";
import { clipped, count, fill, h, plural } from "./dom.js";
import { closed, frame, may, to } from "./frame.js";
import { ANNOTATOR, annotatorOf, remember } from "./memory.js";
import { keptNotice, outbox, saying } from "./outbox.js";
import { Session } from "./session.js";
import { announce, card, empty, facts, field, form, linkButton, notice, problemBox } from "./ui.js";

// What comes sooner after an item is shown was meant for the one before: the second half of a double click.
const SETTLE = 250;

/** Who labels, and which selection. */
export async function labelChoice(context, { pool: name }, chosen = null) {
  const shown = (...children) => frame(name, "label", "Label", children);
  if (!may(context, "label")) return shown(closed(context, "label", "label items"));
  const { selections } = await get(`${path("v1", "pools", name)}/selections?limit=100`, context);
  const ready = selections.filter((made) => made.state === "done");
  if (ready.length === 0) {
    const text =
      selections.length > 0
        ? "A selection is being made; come back in a moment."
        : "Ask first which items are worth a label.";
    return shown(empty("Nothing to label yet", text, linkButton("To the overview", to("pools", name), true)));
  }
  const annotator = h("input", {
    type: "text",
    required: true,
    maxlength: 200,
    autocomplete: "nickname",
    value: annotatorOf(context),
    "data-focus": true,
  });
  const first = ready.find((made) => made.n_labelled < made.budget) ?? ready[0];
  const described = (made) =>
    `${made.method}, ${plural(made.budget, "item")}: ${count(made.n_labelled)} labelled (${made.created_at.slice(0, 16).replace("T", " ")} UTC)`;
  const selection = h(
    "select",
    {},
    ready.map((made) => h("option", { value: made.id, selected: made.id === (chosen ?? first.id) }, described(made))),
  );
  const send = async () => {
    remember(ANNOTATOR, annotator.value.trim());
    const target = to("pools", name, "label", selection.value);
    if (location.hash === target) await context.refresh();
    else location.hash = target;
  };
  return shown(
    h(
      "div",
      { class: "narrow" },
      card(
        "Who labels what",
        form(
          [field("Your name", annotator, "It stands beside every label you give."), field("Selection", selection)],
          "Begin",
          send,
        ),
      ),
    ),
  );
}

/** One item after another. */
export async function labelView(context, params) {
  const { pool: name, selection } = params;
  const annotator = annotatorOf(context);
  if (!annotator || !may(context, "label")) return labelChoice(context, params, selection);
  const made = await get(`${path("v1", "pools", name)}/selections/${encodeURIComponent(selection)}?limit=1`, context);
  const place = h("div", {});
  const session = new Session(name, selection, annotator, context.signal, () => desk.draw());
  const desk = new Desk(session, made, place, context.signal);
  await session.renew();
  if (session.problem && !session.problem.passes) throw session.problem;
  desk.draw();
  return frame(name, "label", "Label", place);
}

/** Everything that is seen while labelling. */
class Desk {
  #shown = null;
  #since = 0;
  #panel = null;
  #seen = null;

  constructor(session, made, place, signal) {
    Object.assign(this, { session, made, signal });
    this.status = h("div", {});
    this.item = h("div", { class: "item-place" });
    this.recent = h("div", {});
    this.numbers = h("div", {});
    fill(place, this.numbers, this.status, this.item, this.recent);
    document.addEventListener("keydown", (event) => this.#pressed(event), { signal });
    outbox.listen(() => this.#drawKept(), { signal });
    outbox.addEventListener("refused", () => announce("A label could not be taken. It is kept, with the reason."), {
      signal,
    });
  }

  draw() {
    const { session } = this;
    this.#drawNumbers();
    this.#drawKept();
    if (session.current?.id !== this.#shown?.id || session.current?.before !== this.#shown?.before || !session.current)
      this.#drawItem();
    this.#panel?.lost(session.lost);
  }

  #drawNumbers() {
    const { session, made } = this;
    const done = Math.max(0, made.budget - (session.left ?? 0));
    fill(
      this.numbers,
      h(
        "div",
        { class: "desk-head" },
        h(
          "p",
          {},
          "You are ",
          h("strong", {}, session.annotator),
          " · ",
          h("a", { href: to("pools", session.pool, "label") }, "change"),
        ),
        h(
          "div",
          { class: "progress" },
          h("progress", { max: made.budget, value: done, "aria-label": "Items done" }),
          h(
            "span",
            { class: "small", "data-left": session.left ?? "" },
            `${count(done)} of ${count(made.budget)} done, ${count(session.left ?? 0)} left for you`,
          ),
        ),
      ),
    );
  }

  #drawKept() {
    const { problem, current } = this.session;
    fill(this.status, keptNotice(), problem && !current && problemBox(problem, () => this.session.renew()));
    this.#drawRecent();
  }

  #drawRecent() {
    const unsent = new Map(outbox.entries().map((entry) => [entry.key, entry]));
    const last = this.session.past.slice(-5).reverse();
    const state = (entry) => {
      const kept = unsent.get(entry.key);
      if (!kept) return h("span", { class: "tag good" }, "saved");
      return kept.refused ? h("span", { class: "tag bad" }, "refused") : h("span", { class: "tag open" }, "to be sent");
    };
    const seen = last.map((given) => [
      given.entry.key,
      unsent.has(given.entry.key),
      unsent.get(given.entry.key)?.refused,
    ]);
    if (JSON.stringify(seen) === this.#seen) return; // a button that has the focus keeps it
    this.#seen = JSON.stringify(seen);
    const row = (given) =>
      h(
        "li",
        {},
        h("span", { class: "recent-text" }, given.item.text),
        h(
          "span",
          { class: "recent-end" },
          h("strong", {}, saying(given.entry)),
          " ",
          state(given.entry),
          h(
            "button",
            { type: "button", class: "small-button", on: { click: () => this.#undo(given) } },
            "Change",
            h("span", { class: "hidden" }, ` the answer for ${given.item.id}`),
          ),
        ),
      );
    fill(this.recent, last.length > 0 && card("What you said last", h("ul", { class: "recent" }, last.map(row))));
  }

  #drawItem() {
    const { session } = this;
    this.#shown = session.current;
    this.#since = performance.now();
    this.#panel = null;
    if (!session.current) return void fill(this.item, this.#nothing());
    this.#panel = answers(session, {
      say: (status, label) => this.#say(status, label),
      undo: () => this.#undo(),
      goOn: () => session.goOn(),
    });
    const focused = [...this.item.querySelectorAll("button")].indexOf(document.activeElement);
    fill(this.item, this.#panel.element);
    // Who goes by Tab stays at the same answer.
    if (focused >= 0) this.item.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
    this.#panel.ready();
    return undefined;
  }

  #nothing() {
    const { session } = this;
    if (session.problem)
      return h("p", { class: "soft" }, "No more items are at hand. They come when the service answers again.");
    if (session.left === null) return h("p", { class: "loading" }, "Loading…");
    if (session.left > 0) {
      return empty(
        `${plural(session.left, "item")} left, all with others now`,
        "What they do not label comes back to you. This page looks every few seconds.",
        h("button", { type: "button", on: { click: () => session.renew() } }, "Look now"),
      );
    }
    const done = this.session.past.length;
    return empty(
      "All done",
      done > 0 ? `You went through ${plural(done, "item")}. Thank you.` : "Nothing of this selection is left for you.",
      linkButton("Write a prompt", to("pools", session.pool, "prompt"), true),
      linkButton("See the agreement", to("pools", session.pool, "agreement")),
      linkButton("Evaluate the labels", to("pools", session.pool, "evaluation")),
    );
  }

  #say(status, label = null) {
    if (performance.now() - this.#since < SETTLE) return;
    const said = this.session.say(status, label);
    const next = this.session.current ? `Next: ${clipped(this.session.current.text, 300)}` : "";
    if (said) announce(`${saying(said)}. ${next}`, { quiet: true });
  }

  #undo(given) {
    const before = this.session.takeBack(given);
    if (before) announce(`${saying(before)} is taken back. Choose again.`, { quiet: true });
  }

  #pressed(event) {
    const what = meant(event);
    if (what === null) return;
    const word = typeof what === "number" ? this.#panel?.word(what) : undefined;
    if (what === "undo") this.#undo();
    else if (word !== undefined) this.#say("label", word);
    else if (typeof what === "string" && this.#panel) this.#say(what);
    else return;
    event.preventDefault();
  }
}
