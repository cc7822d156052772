// Small things that this browser remembers: a name, a switch. Where it remembers nothing, they hold for the tab.

const PREFIX = "icl-select.";
const tab = new Map();

export const ANNOTATOR = "annotator";
export const SHORTCUTS = "shortcuts";

export function recall(name, otherwise) {
  try {
    return localStorage.getItem(PREFIX + name) ?? tab.get(name) ?? otherwise;
  } catch {
    return tab.get(name) ?? otherwise;
  }
}

export function remember(name, value) {
  tab.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // the tab has it
  }
}

/** Under which name somebody labels: as last time, else by the name of their key. */
export const annotatorOf = (context) => recall(ANNOTATOR, context.session.closed ? context.session.name : "");
