// Texts of items that a view knows by their ids alone: fetched one after another into places that stand already.

import { get, path } from "./api.js";
import { clipped, h } from "./dom.js";

const AT_MOST = 32;

/** `of(id)` is the place for the text of an item; the first of them are filled. */
export function textsOf(pool, context) {
  const places = new Map();
  const load = async () => {
    for (const [id, place] of [...places].slice(0, AT_MOST)) {
      try {
        const item = await get(path("v1", "pools", pool, "items", id), context);
        place.textContent = clipped(item.text);
      } catch {
        return; // the ids stay, and lead there
      }
    }
  };
  return {
    of(id) {
      if (places.size === 0) queueMicrotask(load);
      const place = h("span", { class: "text" });
      places.set(id, place);
      return place;
    },
  };
}
