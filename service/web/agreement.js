// How far annotators agree, and what they leave open.

import { get, path } from "./api.js";
import { count, decimal, h, percent, plural } from "./dom.js";
import { frame, to } from "./frame.js";
import { textsOf } from "./texts.js";
import { card, empty, facts, linkButton, measure, table } from "./ui.js";

export async function agreementView(context, { pool: name }) {
  const found = await get(`${path("v1", "pools", name)}/agreement`, context);
  return frame(
    name,
    "agreement",
    "Agreement",
    h("p", { class: "lead" }, "How often annotators who labelled the same items gave the same label."),
    agreement(found, name, context),
  );
}

function agreement(found, name, context) {
  if (found.n_items === 0)
    return empty("No labels yet", "Label items first.", linkButton("Label items", to("pools", name, "label"), true));
  if (found.n_multiple === 0) {
    return empty(
      "Nothing to compare yet",
      `${plural(found.n_items, "item")} labelled, each by one person. Set “Labels wanted for each item” to 2 or more in the overview, and let somebody else label too.`,
      linkButton("To the overview", to("pools", name), true),
    );
  }
  const interval =
    found.low === null
      ? "too few items for an interval"
      : `${percent(found.level)} interval ${decimal(found.low)} to ${decimal(found.high)}`;
  return [
    facts([
      [
        "Krippendorff’s alpha",
        decimal(found.alpha),
        h("span", { class: "small" }, found.alpha === null ? "all labels are the same one" : interval),
      ],
      ["Pairs of labels that agree", percent(found.pairwise)],
      ["Items with several labels", `${count(found.n_multiple)} of ${count(found.n_items)}`],
      ["Annotators", count(found.n_annotators)],
    ]),
    h("p", { class: "soft" }, "Alpha is 1 where all agree and 0 where they agree as often as by chance."),
    card(
      "Open items",
      found.conflicts.length === 0
        ? h("p", {}, "None: where people disagree, a majority decided.")
        : open(found.conflicts, name, context),
    ),
    found.pairs.length > 0 &&
      card(
        "Who agrees with whom",
        table(
          "Pairs of annotators",
          [
            { title: "Annotators", cell: (pair) => `${pair.first} and ${pair.second}` },
            { title: "Items both labelled", kind: "right", cell: (pair) => count(pair.n_items) },
            {
              title: "Same label",
              cell: (pair) => measure(pair.share, percent(pair.share), `Agreement of ${pair.first} and ${pair.second}`),
            },
          ],
          found.pairs,
        ),
      ),
  ];
}

function open(ids, name, context) {
  const texts = textsOf(name, context);
  const columns = [
    { title: "Item", cell: (id) => h("a", { href: to("pools", name, "items", id) }, id) },
    { title: "Text", kind: "wide", cell: texts.of },
  ];
  return [
    h("p", {}, `${plural(ids.length, "item")} without a label, because annotators disagree. Look at each and decide.`),
    table("Items on which annotators disagree", columns, ids.slice(0, 100)),
    ids.length > 100 && h("p", { class: "soft" }, "The first 100 are shown."),
  ];
}
