// One annotator going through one selection: which item is theirs now, which come next, what they have said. No
// elements in here; the view draws what `changed` tells it about.

import { path, post, Problem, remove } from "./api.js";
import { outbox } from "./outbox.js";

const AHEAD = 4; // items held, so that the next one is there at once and a short break of the connection is not felt
const LEASE_SECONDS = 600;
const RENEW_BEFORE = 90000;
const LOOK_AGAIN = 5000;

export class Session {
  #said = new Map(); // item id -> its last entry of this session
  #asking = null;
  #asked = false;
  #timer = 0;
  #fails = 0;
  current = null;
  queue = [];
  past = []; // { item, entry }, oldest first
  words = null;
  left = null;
  problem = null; // why no items could be had
  lost = null; // the item that somebody else has now

  constructor(pool, selection, annotator, signal, changed) {
    Object.assign(this, { pool, selection, annotator, signal, changed });
    this.where = path("v1", "pools", pool);
    const renew = () => !document.hidden && this.renew();
    document.addEventListener("visibilitychange", renew, { signal });
    addEventListener("online", renew, { signal });
    addEventListener("pagehide", () => this.#release(), { signal });
    outbox.addEventListener("dropped", (event) => this.#dropped(event.detail), { signal });
    outbox.addEventListener("saved", (event) => this.#saved(event.detail.entry), { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(this.#timer);
      this.#release();
    });
  }

  /** Say something of the current item, and go on to the next. */
  say(status, label = null) {
    const item = this.current;
    if (!item) return null;
    const entry = outbox.add({
      pool: this.pool,
      id: item.id,
      annotator: this.annotator,
      status,
      label,
      text: item.text,
    });
    this.#said.set(item.id, entry);
    this.past.push({ item, entry });
    this.left = Math.max(0, this.left - 1);
    this.lost = null;
    this.#advance();
    if (!this.current) this.renew();
    return entry;
  }

  /** Take back what was said of an item, and show it again. */
  takeBack(given = this.past.at(-1)) {
    if (!given) return null;
    const { item } = given;
    const entry = outbox.add({
      pool: this.pool,
      id: item.id,
      annotator: this.annotator,
      status: "retract",
      label: null,
      text: item.text,
    });
    this.#said.set(item.id, entry);
    this.past = this.past.filter((one) => one.item.id !== item.id);
    if (this.current) this.queue.unshift(this.current);
    this.current = { ...item, before: given.entry };
    this.left += 1;
    this.lost = null;
    this.changed();
    return given.entry;
  }

  /**
   * Ask for items, which also makes the leases of those held begin anew. One request at a time: who asks meanwhile gets
   * another one after it, since the first may have been answered too early.
   */
  renew() {
    if (this.#asking) this.#asked = true;
    else this.#asking = this.#askAll().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #askAll() {
    do {
      this.#asked = false;
      await this.#ask();
    } while (this.#asked && !this.problem && !this.signal.aborted);
  }

  /** Leave the item that somebody else has now. */
  goOn() {
    this.lost = null;
    this.#advance();
  }

  async #ask() {
    const count = Math.min(1000, AHEAD + this.#unsent().length);
    const body = { annotator: this.annotator, count, lease_seconds: LEASE_SECONDS };
    const where = `${this.where}/selections/${encodeURIComponent(this.selection)}/next`;
    try {
      const found = await post(where, body, { signal: this.signal, key: null });
      this.#fails = 0;
      this.problem = null;
      this.#take(found, found.items.length < count);
    } catch (problem) {
      if (this.signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      this.#fails += 1;
      this.problem = problem;
      this.changed();
    }
    this.#plan();
  }

  #mine(entry) {
    return entry.pool === this.pool && entry.annotator === this.annotator;
  }

  #unsent() {
    return outbox.entries().filter((entry) => this.#mine(entry));
  }

  /** Ids of which the last word is an answer, whether the service has it already or not. */
  #answered() {
    const last = new Map([...this.#unsent().map((entry) => [entry.id, entry]), ...this.#said]);
    return new Set([...last].filter(([, entry]) => entry.status !== "retract").map(([id]) => id));
  }

  /** What the service gave, without what it does not know yet that we have answered; `all` if it has no more. */
  #take(found, all) {
    const answered = this.#answered();
    const unknown = new Set(
      this.#unsent()
        .map((entry) => entry.id)
        .filter((id) => answered.has(id)),
    );
    const items = found.items.filter((item) => !answered.has(item.id));
    this.words = found.label_words;
    this.left = Math.max(0, found.remaining - unknown.size);
    this.queue = items.filter((item) => item.id !== this.current?.id);
    if (this.current) this.#check(items, all || found.items.at(-1).rank > this.current.rank);
    if (this.current) this.changed();
    else this.#advance();
  }

  /** Whether the current item is still ours; `told` if the answer went far enough to say so. */
  #check(items, told) {
    const held = items.find((item) => item.id === this.current.id);
    const back = this.#said.has(this.current.id); // taken back, which the service may not know yet
    if (held) this.current = { ...this.current, expires_at: held.expires_at };
    this.lost = !held && told && !back ? this.current : null;
  }

  #advance() {
    this.current = this.queue.shift() ?? null;
    this.changed();
  }

  /** When to ask again: before the lease ends, or soon where something is missing. */
  #plan() {
    clearTimeout(this.#timer);
    if (this.signal.aborted) return;
    let pause = LEASE_SECONDS * 1000 - RENEW_BEFORE;
    if (this.problem?.passes)
      pause = Math.max(1000 * (this.problem.retryAfter ?? 0), Math.min(30000, 1000 * 2 ** this.#fails));
    else if (this.problem) return;
    else if (!this.current && this.left > 0) pause = LOOK_AGAIN;
    else if (!this.current) return;
    this.#timer = setTimeout(() => !document.hidden && this.renew(), pause);
  }

  /** Once the service has all that was said, it can say exactly what is left, and what comes next. */
  #saved(entry) {
    if (this.#mine(entry) && this.#unsent().length === 0) this.renew();
  }

  #dropped(entry) {
    if (this.#mine(entry) && this.#said.get(entry.id)?.key === entry.key) {
      this.#said.delete(entry.id);
      this.past = this.past.filter((one) => one.entry.key !== entry.key);
      this.renew();
    }
  }

  /** Others need not wait for the lease to end. */
  #release() {
    remove(`${this.where}/leases?annotator=${encodeURIComponent(this.annotator)}`, { keepalive: true }).catch(() => {});
  }
}
