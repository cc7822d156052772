// Adding items: a file, chosen or dropped, with progress and the sentence of the service if it does not take it.

import { path, upload } from "./api.js";
import { bytes, count, fill, h, plural, share } from "./dom.js";
import { announce, field, notice, problemBox } from "./ui.js";

const MEDIA = {
  jsonl: "application/x-ndjson",
  ndjson: "application/x-ndjson",
  parquet: "application/vnd.apache.parquet",
};

export function uploadForm(pool, context, changed) {
  const input = h("input", { type: "file", accept: ".jsonl,.ndjson,.parquet", required: true });
  const skip = h("input", { type: "checkbox" });
  const outcome = h("div", { class: "outcome" });
  const button = h("button", { type: "submit", class: "primary" }, "Upload");
  const element = h(
    "form",
    { class: "drop" },
    field(
      "File",
      input,
      ".jsonl or .ndjson (one JSON object on each line) or .parquet. All rows are taken or none; rows that are there already change nothing.",
    ),
    h(
      "div",
      { class: "field" },
      h("label", { class: "tick" }, skip, h("span", {}, "Leave out rows with an empty text")),
    ),
    h("div", { class: "actions" }, button),
    outcome,
  );

  const send = async (file) => {
    if (button.disabled) return;
    const refused = unfit(file, context.info.limits.upload_bytes);
    if (refused) return void fill(outcome, notice(refused));
    button.disabled = true;
    const stop = new AbortController();
    context.signal.addEventListener("abort", () => stop.abort(), { once: true });
    const show = progress(file, outcome, stop);
    try {
      const where = `${path("v1", "pools", pool)}/items${skip.checked ? "?skip_empty=true" : ""}`;
      const done = await upload(where, file, mediaOf(file.name), { onProgress: show, signal: stop.signal });
      const text = told(done, file.name);
      fill(outcome, h("div", { class: "notice good" }, text));
      announce(text, { quiet: true }); // it stands below the button too
      element.reset();
      await changed();
    } catch (problem) {
      if (problem?.name === "AbortError") fill(outcome, notice("Stopped. Nothing of the file was taken."));
      else fill(outcome, problemBox(problem));
    } finally {
      button.disabled = false;
    }
  };

  element.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.files.length > 0) send(input.files[0]);
  });
  dropping(element, send);
  return element;
}

const mediaOf = (name) => MEDIA[name.split(".").pop().toLowerCase()];

/** Why a file cannot be sent, or null. */
function unfit(file, most) {
  if (!mediaOf(file.name)) return `“${file.name}” is not read here. Upload a .jsonl, .ndjson or .parquet file.`;
  if (file.size > most)
    return `“${file.name}” has ${bytes(file.size)}, and ${bytes(most)} are the limit. Upload it in parts.`;
  if (file.size === 0) return `“${file.name}” is empty.`;
  return null;
}

/** A bar for bytes sent; then it says that the service reads them. */
function progress(file, outcome, stop) {
  const meter = h("progress", { max: file.size, value: 0, "aria-label": `Upload of ${file.name}` });
  const text = h("span", { class: "small" }, "begins");
  const cancel = h("button", { type: "button", class: "small-button", on: { click: () => stop.abort() } }, "Stop");
  fill(outcome, h("div", { class: "progress" }, meter, text, cancel));
  return (sent, total) => {
    if (sent < total) {
      meter.value = sent;
      text.textContent = `${share(sent, total)} of ${bytes(total)} sent`;
    } else {
      meter.removeAttribute("value");
      text.textContent = "sent; the rows are being read";
    }
  };
}

function told(done, name) {
  const parts = [`${plural(done.added, "item")} added`];
  if (done.unchanged) parts.push(`${count(done.unchanged)} were there already`);
  if (done.skipped) parts.push(`${count(done.skipped)} with an empty text left out`);
  if (done.labelled) parts.push(`${plural(done.labelled, "label")} taken`);
  return `${name}: ${parts.join(", ")}. The pool has ${plural(done.n_items, "item")} now.`;
}

function dropping(element, send) {
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.toggle("over", event.type === "dragover");
  };
  element.addEventListener("dragover", over);
  element.addEventListener("dragleave", over);
  element.addEventListener("drop", (event) => {
    over(event);
    const [file] = event.dataTransfer.files;
    if (file) send(file);
  });
}
