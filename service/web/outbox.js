// Labels on their way to the service. A label is written down here before it is sent and crossed out once the service
// has it on disk. What cannot be sent waits in this browser, over reloads and restarts, and is sent again.
//
// Every label bears the moment at which it was given, and the service orders an annotator's words by it. So sending one
// twice, or from two tabs at once, or late, changes nothing.

import { clock, path, Problem, put, unique } from "./api.js";
import { clipped, fill, h, plural, when } from "./dom.js";
import { to } from "./frame.js";
import { announce, empty, notice } from "./ui.js";

const PREFIX = "icl-select.label.";
const LAST = "icl-select.last-moment";
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30000;

class Outbox extends EventTarget {
  #memory = new Map(); // where the browser stores nothing
  #sending = false;
  #wake = null;
  #pause = FIRST_PAUSE;
  #last = 0;
  problem = null;
  durable = true;
  retryAt = null;

  /** Every label that is not on disk yet, oldest first. */
  entries() {
    const found = [...this.#memory.values()];
    try {
      for (let place = 0; place < localStorage.length; place += 1) {
        const key = localStorage.key(place);
        if (key.startsWith(PREFIX)) found.push(JSON.parse(localStorage.getItem(key)));
      }
    } catch {
      this.durable = false;
    }
    return found.sort((a, b) => (a.created_at < b.created_at ? -1 : 1));
  }

  counts() {
    const all = this.entries();
    const refused = all.filter((entry) => entry.refused).length;
    return { waiting: all.length - refused, refused };
  }

  /** Keep a word of an annotator, `{ pool, id, annotator, status, label, text }`, and send it. */
  add(word) {
    const entry = { ...word, key: unique(), created_at: this.#moment(), refused: null };
    this.#keep(entry);
    this.#tell();
    this.#send();
    return entry;
  }

  /** Send now what waits. */
  hurry() {
    this.#pause = FIRST_PAUSE;
    if (this.#wake) this.#wake();
    this.#send();
  }

  /** Send a refused one again, as said now. */
  again(entry) {
    this.#keep({ ...entry, created_at: this.#moment(), refused: null });
    this.#tell();
    this.hurry();
  }

  drop(entry) {
    this.#forget(entry);
    this.#tell();
    this.dispatchEvent(new CustomEvent("dropped", { detail: entry }));
  }

  listen(told, options) {
    this.addEventListener("change", told, options);
    told();
  }

  start() {
    addEventListener("online", () => this.hurry());
    addEventListener("storage", (event) => event.key?.startsWith(PREFIX) && this.#tell());
    addEventListener("beforeunload", (event) => {
      if (this.#memory.size > 0) event.preventDefault(); // nothing else keeps them
    });
    this.#send();
  }

  /** Now, by the clock of the service, and later than every moment given before. */
  #moment() {
    let before = this.#last;
    try {
      before = Math.max(before, Number(localStorage.getItem(LAST) ?? 0));
    } catch {
      // then this tab alone counts
    }
    // A clock that was set back must not make later words older; one that was hours ahead must not either.
    const now = clock.now();
    this.#last = before >= now && before - now < 60000 ? before + 1 : now;
    try {
      localStorage.setItem(LAST, String(this.#last));
    } catch {
      // as above
    }
    return new Date(this.#last).toISOString();
  }

  #keep(entry) {
    try {
      localStorage.setItem(PREFIX + entry.key, JSON.stringify(entry));
      this.#memory.delete(entry.key);
    } catch {
      this.durable = false;
      this.#memory.set(entry.key, entry);
    }
  }

  #forget(entry) {
    this.#memory.delete(entry.key);
    try {
      localStorage.removeItem(PREFIX + entry.key);
    } catch {
      this.durable = false;
    }
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }

  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (let entry = this.#next(); entry; entry = this.#next()) await this.#deliver(entry);
    } finally {
      this.#sending = false;
    }
  }

  #next() {
    return this.entries().find((entry) => !entry.refused);
  }

  async #deliver(entry) {
    const { id, annotator, status, label, created_at } = entry;
    try {
      const done = await put(`${path("v1", "pools", entry.pool)}/labels`, {
        labels: [{ id, annotator, status, label, created_at }],
      });
      this.#forget(entry);
      this.problem = null;
      this.#pause = FIRST_PAUSE;
      this.#tell();
      this.dispatchEvent(new CustomEvent("saved", { detail: { entry, done } }));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.passes) await this.#wait(problem);
      else this.#refuse(entry, problem);
    }
  }

  #refuse(entry, { title, detail, requestId }) {
    this.#keep({ ...entry, refused: { title, detail, requestId } });
    this.#tell();
    this.dispatchEvent(new CustomEvent("refused", { detail: entry }));
  }

  async #wait(problem) {
    const pause = problem.retryAfter ? Math.max(this.#pause, problem.retryAfter * 1000) : this.#pause;
    this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
    this.problem = problem;
    this.#tell();
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, pause);
    });
    this.#wake = null;
  }
}

export const outbox = new Outbox();

/** What was said, in words: the label, or what stands in its place. */
export const saying = (entry) =>
  ({ label: `“${entry.label}”`, skip: "skipped", unsure: "unsure", retract: "taken back" })[entry.status];

/** A line about what waits and why; null where all is saved. */
export function keptNotice() {
  const { waiting, refused } = outbox.counts();
  if (refused > 0) {
    return h(
      "div",
      { class: "problem" },
      h("p", {}, `${plural(refused, "label")} could not be taken. `, h("a", { href: "#/kept" }, "See why")),
    );
  }
  if (waiting === 0 || !outbox.problem) return null;
  const where = outbox.durable ? "kept in this browser" : "kept in this tab alone, so leave it open";
  return h(
    "div",
    { class: "notice open" },
    h(
      "p",
      {},
      h("strong", {}, `${plural(waiting, "label")} not sent yet: ${where}, and sent again by itself. `),
      outbox.problem.detail,
    ),
    h("button", { type: "button", on: { click: () => outbox.hurry() } }, "Send now"),
  );
}

/** Everything that is not on disk yet. */
export async function keptView(context) {
  const list = h("div", {});
  outbox.listen(() => fill(list, outbox.entries().map(keptRow), keptEmpty()), { signal: context.signal });
  return h(
    "div",
    { class: "narrow" },
    h("h1", {}, "Labels not sent yet"),
    h("p", { class: "lead" }, "They are kept in this browser until the service has them."),
    list,
  );
}

function keptEmpty() {
  return (
    outbox.entries().length === 0 && empty("Nothing waits", "Every label that was given in this browser is saved.")
  );
}

function keptRow(entry) {
  const head = h(
    "p",
    {},
    h("strong", {}, saying(entry)),
    ` by ${entry.annotator} for `,
    h("a", { href: to("pools", entry.pool, "items", entry.id) }, entry.id),
    " · ",
    when(entry.created_at),
  );
  const drop = () => {
    outbox.drop(entry);
    announce("Thrown away");
  };
  return h(
    "section",
    { class: "card" },
    head,
    h("p", { class: "soft" }, clipped(entry.text ?? "", 240)),
    entry.refused
      ? h(
          "div",
          { class: "problem" },
          h("p", { class: "problem-title" }, entry.refused.title),
          h("p", {}, entry.refused.detail),
          entry.refused.requestId && h("p", { class: "small" }, "Request ", h("code", {}, entry.refused.requestId)),
        )
      : notice(outbox.problem ? outbox.problem.detail : "It is being sent."),
    h(
      "p",
      { class: "actions" },
      entry.refused
        ? [
            h("button", { type: "button", on: { click: () => outbox.again(entry) } }, "Send it again"),
            h("button", { type: "button", on: { click: drop } }, "Throw it away"),
          ]
        : h("button", { type: "button", on: { click: () => outbox.hurry() } }, "Send now"),
    ),
  );
}
