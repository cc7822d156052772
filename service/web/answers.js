// The card of one item: its text, and the ways to answer, by button and by key.

import { fill, h } from "./dom.js";
import { recall, remember, SHORTCUTS } from "./memory.js";
import { saying } from "./outbox.js";
import { field, notice, tick } from "./ui.js";

const MANY = 12; // from so many words on they can be searched

const shortcuts = () => recall(SHORTCUTS, "on") === "on";

/** The card for the current item of a session. `ways` are what a person can do: say, undo, goOn. */
export function answers(session, ways) {
  const item = session.current;
  const lostPlace = h("div", { "aria-live": "polite" });
  const text = h("div", { class: "item-text", tabindex: "0", role: "region", "aria-label": "Item" }, item.text);
  const given = session.words ? wordButtons(session.words, item, ways) : freeText(item, ways);
  const others = h(
    "div",
    { class: "others" },
    answerButton("Skip", "S", () => ways.say("skip")),
    answerButton("Unsure", "U", () => ways.say("unsure")),
    answerButton("Undo", "Z", () => ways.undo(), session.past.length === 0),
  );
  const element = h(
    "section",
    { class: "card item", "aria-label": `Item ${item.rank + 1}`, "data-item": item.id },
    h("p", { class: "item-head" }, h("span", {}, `Item ${item.rank + 1}`), h("code", {}, item.id)),
    item.before && notice("You said ", h("strong", {}, saying(item.before)), " before. Choose again."),
    lostPlace,
    text,
    extras(item),
    given.element,
    others,
    keys(session.words),
  );
  return {
    element,
    word: given.word,
    ready: () => given.ready(),
    lost: (lost) => fill(lostPlace, lost && lostNotice(ways)),
  };
}

function lostNotice(ways) {
  return notice(
    h(
      "p",
      {},
      "You had this item for ten minutes, and it went to somebody else meanwhile, or got its labels. You can still answer it; then your label stands beside theirs.",
    ),
    h("button", { type: "button", on: { click: ways.goOn } }, "Leave it to them"),
  );
}

/** Fields that the text does not show already. */
function extras(item) {
  const shown = Object.entries(item.fields).filter(
    ([, value]) => value !== null && value !== "" && !item.text.includes(String(value)),
  );
  if (shown.length === 0) return null;
  const written = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return h(
    "dl",
    { class: "fields" },
    shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, written(value)))),
  );
}

/** A button that the second half of a double click does not press. */
function answerButton(text, key, press, disabled = false) {
  const click = (event) => event.detail <= 1 && press();
  return h(
    "button",
    { type: "button", class: "answer", disabled, "aria-keyshortcuts": key, on: { click } },
    h("span", {}, breakable(text)),
    key && h("kbd", { "aria-hidden": "true" }, key),
  );
}

/** A label that may be broken where its parts meet. */
function breakable(text) {
  return text.split(/(?<=[_./-])/).map((part, place) => (place === 0 ? part : [h("wbr"), part]));
}

function wordButtons(words, item, ways) {
  const made = words.map((word, place) => {
    const button = answerButton(word, place < 9 ? String(place + 1) : "", () => ways.say("label", word));
    if (item.before?.label === word) button.classList.add("before");
    return button;
  });
  const list = h("div", { class: "words", role: "group", "aria-label": "Labels" }, made);
  if (words.length < MANY) return { element: list, ready: () => {}, word: (place) => words[place] };
  const search = h("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Find a label" });
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    made.forEach((button, place) => (button.hidden = !words[place].toLowerCase().includes(wanted)));
  });
  search.addEventListener("keydown", (event) => {
    const left = made.filter((button) => !button.hidden);
    if (event.key === "Enter" && !event.repeat && left.length === 1) left[0].click();
  });
  return {
    element: h("div", {}, field("Find a label", search, "Enter takes it when one is left."), list),
    ready: () => {},
    word: (place) => words[place],
  };
}

function freeText(item, ways) {
  const input = h("textarea", {
    rows: 2,
    maxlength: 20000,
    value: item.before?.label ?? "",
    autocomplete: "off",
    "data-focus": true,
  });
  const save = () => {
    const label = input.value.trim();
    if (label) ways.say("label", label);
    else input.focus();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.repeat) save();
  });
  const element = h(
    "div",
    {},
    field("Label", input, "Enter saves it; Shift and Enter begin a new line."),
    h("div", { class: "words" }, answerButton("Save", "Enter", save)),
  );
  return { element, ready: () => input.focus({ preventScroll: true }), word: () => undefined };
}

function keys(words) {
  const box = h("input", { type: "checkbox", checked: shortcuts() });
  box.addEventListener("change", () => remember(SHORTCUTS, box.checked ? "on" : "off"));
  return h(
    "div",
    { class: "keys" },
    tick(
      words
        ? "Keys: 1 to 9 for labels, S to skip, U for unsure, Z to undo"
        : "Keys outside of the field: S to skip, U for unsure, Z to undo",
      box,
    ),
  );
}

/** What a key means: "skip", "unsure", "undo", the place of a label word, or null. */
export function meant(event) {
  if (event.repeat || event.defaultPrevented || !shortcuts()) return null;
  if (event.target.closest?.("input:not([type=checkbox]), textarea, select")) return null; // somebody writes
  const key = event.key.toLowerCase();
  if (event.altKey) return null;
  if (event.ctrlKey || event.metaKey) return key === "z" && !event.shiftKey ? "undo" : null;
  if (/^[1-9]$/.test(key)) return Number(key) - 1;
  return { s: "skip", u: "unsure", z: "undo" }[key] ?? null;
}
