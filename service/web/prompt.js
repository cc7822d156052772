// Prompts: asked for with a query, or rebuilt by their id; both look the same.

import { get, path, post } from "./api.js";
import { count, decimal, fill, h, plural } from "./dom.js";
import { frame, to } from "./frame.js";
import { textsOf } from "./texts.js";
import {
  announce,
  card,
  copy,
  empty,
  facts,
  field,
  form,
  linkButton,
  measure,
  notice,
  table,
  tag,
  tick,
} from "./ui.js";

const ORDERS = [
  ["", "as the pool has it"],
  ["nearest_last", "most similar last, next to the query"],
  ["nearest_first", "most similar first"],
  ["shuffled", "shuffled"],
];

export async function promptView(context, { pool: name }) {
  const pool = await get(path("v1", "pools", name), context);
  if (pool.n_labelled === 0) {
    return frame(
      name,
      "prompt",
      "Prompt",
      empty(
        "Nothing to show in a prompt yet",
        "Prompts show labelled items as examples. Label some first.",
        linkButton("Label items", to("pools", name, "label"), true),
      ),
    );
  }
  const query = h("textarea", { rows: 3, required: true, "data-focus": true });
  const k = number(pool.prompt.k ?? 8, { min: 1, max: context.info.limits.k, required: true });
  const tokens = number(pool.prompt.max_tokens ?? "", { min: 1 });
  const order = h(
    "select",
    {},
    ORDERS.map(([value, text]) => h("option", { value }, text)),
  );
  const tokenizer = h(
    "select",
    {},
    h("option", { value: "" }, "as the pool has it"),
    context.info.tokenizers.map((one) => h("option", { value: one }, one)),
  );
  const least = h("input", { type: "number", min: -1, max: 1, step: "any", value: pool.prompt.min_similarity ?? "" });
  const balance = h("input", { type: "checkbox", checked: pool.prompt.balance ?? false });
  const result = h("div", {});
  const send = async () => {
    const body = { pool: name, query: query.value, k: Number(k.value), balance: balance.checked };
    if (tokens.value) body.max_tokens = Number(tokens.value);
    if (order.value) body.order = order.value;
    if (tokenizer.value) body.tokenizer = tokenizer.value;
    if (least.value !== "") body.min_similarity = Number(least.value);
    const prompt = await post("v1/prompts", body, { signal: context.signal, key: null });
    fill(result, shown(prompt, context), asRequest(body));
    announce(`The prompt shows ${plural(prompt.examples.length, "example")}`);
    result.querySelector("h2").focus();
  };
  const more = h(
    "details",
    {},
    h("summary", {}, "More settings"),
    field("Order of the examples", order),
    field("Tokens are counted by", tokenizer, "Whoever runs the service can offer the tokenizer of your model."),
    field("Least similarity", least, "Examples less similar than this are left out. Empty: no limit."),
    tick("As many examples of each label as can be", balance),
  );
  return frame(
    name,
    "prompt",
    "Prompt",
    card(
      "A query",
      form(
        [
          field("Text of the query", query),
          h(
            "div",
            { class: "row" },
            field("Examples, at most (k)", k),
            field("Tokens, at most", tokens, "Empty: no limit."),
          ),
          more,
        ],
        "Make the prompt",
        send,
      ),
    ),
    h("div", { class: "result" }, result),
  );
}

const number = (value, limits) => h("input", { type: "number", step: 1, value: String(value), ...limits });

/** A prompt written again from its id: the same bytes that were answered, or a refusal. */
export async function rebuiltView(context, { id }) {
  const prompt = await get(path("v1", "prompts", id), context);
  return frame(
    prompt.pool,
    null,
    "Prompt, rebuilt",
    notice(
      "Written again from the items, labels and template as they were then. The service has checked that these are the bytes that it answered.",
    ),
    shown(prompt, context),
  );
}

function shown(prompt, context) {
  const text = h("pre", { tabindex: "0", "aria-label": "Text of the prompt" }, prompt.prompt);
  return [
    card(
      "The prompt",
      facts([
        [
          "Tokens",
          count(prompt.usage.prompt_tokens),
          h("span", { class: "small" }, `counted by ${prompt.versions.tokenizer}`),
        ],
        ["Examples", count(prompt.examples.length)],
        ["Left out", count(prompt.dropped.length)],
        ["Prompt", h("a", { href: to("prompts", prompt.id) }, h("code", {}, prompt.id))],
      ]),
      text,
      h(
        "p",
        { class: "actions" },
        h("button", { type: "button", on: { click: () => copy(prompt.prompt, text) } }, "Copy"),
      ),
      h(
        "details",
        {},
        h("summary", {}, `As ${plural(prompt.messages.length, "chat message")}`),
        prompt.messages.map((message) =>
          h("div", { class: "message" }, h("p", { class: "small" }, message.role), h("pre", {}, message.content)),
        ),
      ),
    ),
    card("Its examples", examples(prompt, context)),
    prompt.dropped.length > 0 &&
      card(
        "Left out",
        h("p", {}, "Found, and not in the prompt:"),
        table(
          "Examples left out",
          [
            { title: "Item", cell: (one) => itemLink(prompt, one.id) },
            { title: "Why", cell: (one) => one.reason },
          ],
          prompt.dropped,
        ),
      ),
    card(
      "Made from",
      facts(Object.entries(prompt.versions).map(([part, version]) => [part, h("code", {}, String(version))])),
    ),
  ];
}

const itemLink = (prompt, id) => h("a", { href: to("pools", prompt.pool, "items", id) }, id);

function examples(prompt, context) {
  if (prompt.examples.length === 0)
    return empty(
      "No examples",
      "Nothing was similar enough, or nothing fitted. Allow more tokens, or label more items.",
    );
  const texts = textsOf(prompt.pool, context);
  const columns = [
    { title: "Rank", cell: (one) => count(one.rank + 1) },
    { title: "Similarity", cell: (one) => measure(one.score, decimal(one.score), `Similarity of ${one.id}`) },
    { title: "Label", cell: (one) => tag(one.label, "good") },
    { title: "Item", kind: "wide", cell: (one) => [itemLink(prompt, one.id), " ", texts.of(one.id)] },
  ];
  const nearest = [...prompt.examples].sort((a, b) => a.rank - b.rank);
  return table("Examples, the most similar first", columns, nearest);
}

function asRequest(body) {
  const text = JSON.stringify(body, null, 2);
  const shown_ = h("pre", { tabindex: "0", "aria-label": "Body of the request" }, text);
  return h(
    "details",
    {},
    h("summary", {}, "The same for a program"),
    h("p", {}, h("code", {}, "POST /v1/prompts"), " with this body:"),
    shown_,
    h("p", { class: "actions" }, h("button", { type: "button", on: { click: () => copy(text, shown_) } }, "Copy")),
  );
}
