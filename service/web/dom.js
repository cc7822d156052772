// Elements out of data. Whatever comes from the service becomes a text node or an attribute value, never markup.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "required", "open"]);

/** An element. `on` holds listeners; null and false leave an attribute, or a child, out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (PROPERTIES.has(name)) {
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Put new children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

const whole = new Intl.NumberFormat("en");
const moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

export const count = (n) => whole.format(n);

export const plural = (n, noun, nouns = `${noun}s`) => `${count(n)} ${n === 1 ? noun : nouns}`;

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

/** A share of a whole as a percentage that says 0% for none of it only, and 100% for all of it only. */
export function share(part, total) {
  if (!total || !part) return "0%";
  const found = Math.floor((100 * part) / total);
  return found < 1 ? "< 1%" : `${found}%`;
}

export const decimal = (x, digits = 2) => (x === null || x === undefined ? "–" : x.toFixed(digits).replace("-", "−"));

export const signed = (x, digits = 1) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);

/** A moment of the service, in the time zone of who reads it. */
export function when(stamp) {
  return h("time", { datetime: stamp }, moments.format(new Date(stamp)));
}

export function bytes(n) {
  const units = ["bytes", "KB", "MB", "GB"];
  const step = Math.min(3, Math.floor(Math.log(Math.max(1, n)) / Math.log(1000)));
  return step === 0 ? `${n} bytes` : `${(n / 1000 ** step).toFixed(1)} ${units[step]}`;
}

/** The beginning of a long text, for lists. */
export function clipped(text, most = 160) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most - 1).trimEnd()}…` : line;
}
