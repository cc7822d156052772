// Reports that a job makes of a pool: its density, and the evaluation of its labels.

import { get, path, post, Problem } from "./api.js";
import { clipped, count, decimal, fill, h, percent, plural, signed, when } from "./dom.js";
import { closed, frame, may, to } from "./frame.js";
import { progressOf } from "./jobs.js";
import { textsOf } from "./texts.js";
import { action, announce, card, empty, facts, linkButton, measure, notice, table, tag } from "./ui.js";

/** The newest report of a kind, or null where none was made. */
async function newest(where, context) {
  try {
    return await get(where, context);
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 404 && problem.detail.includes("report")) return null;
    throw problem;
  }
}

/** A view of a report that a job makes: `parts` are its words and how it is drawn. */
async function reported(context, name, tab, parts) {
  const where = path("v1", "pools", name);
  const pool = await get(where, context);
  const admin = may(context, "admin");
  const body = h("div", {});
  const [progress, look] = progressOf(name, parts.kind, context.signal, async () => {
    announce(`${parts.title} is made`);
    await draw();
  });
  const start = async () => {
    await post(`${where}/${parts.start}`, {});
    await look();
  };
  const draw = async () => {
    const report = await newest(`${where}/${tab}`, context);
    const lack = parts.lack(pool);
    if (report) {
      fill(
        body,
        h(
          "div",
          { class: "report-head" },
          h("p", { class: "soft" }, "Made ", when(report.created_at)),
          admin && !lack && action(parts.again, start),
        ),
        report.stale &&
          notice("The pool or its labels have changed since. ", admin ? "Make it again to have them in." : ""),
        parts.draw(report, where, name),
      );
    } else if (lack) fill(body, lack);
    else
      fill(
        body,
        empty(parts.none, parts.why, admin ? action(parts.button, start, "primary") : null),
        !admin && closed(context, "admin", "make one"),
      );
  };
  await draw();
  return frame(name, tab, parts.title, h("p", { class: "lead" }, parts.about), progress, body);
}

const noItems = (pool) =>
  !pool.n_items &&
  empty("The pool is empty", "Add items first.", linkButton("To the overview", to("pools", pool.name), true));

export const densityView = (context, { pool }) =>
  reported(context, pool, "density", {
    kind: "density",
    start: "density",
    title: "Density",
    about:
      "How much closer an item is to its neighbours than to a stranger. If it is not, choosing items by coverage has little to work with.",
    none: "Not measured yet",
    why: "It takes seconds for thousands of items, minutes for hundreds of thousands.",
    button: "Measure",
    again: "Measure again",
    lack: noItems,
    draw: density,
  });

function density(report, where) {
  const [[encoder, found]] = Object.entries(report.panels);
  const [numbers] = Object.values(found);
  const stamp = encodeURIComponent(report.job); // a new report is a new picture
  return [
    h("p", { class: "verdict" }, numbers.reading),
    facts([
      ["Closeness", decimal(numbers.closeness), h("span", { class: "small" }, "0 strangers, 1 copies")],
      ["Similarity of any two", decimal(numbers.mean)],
      ["Of neighbours", decimal(numbers.neighbourhood_mean)],
      ["To the nearest", decimal(numbers.nearest_mean)],
      ["Items", count(numbers.n)],
      ["Encoder", h("code", {}, encoder)],
    ]),
    h(
      "figure",
      {},
      h(
        "div",
        { class: "paper" },
        h("img", {
          src: `${where}/density?format=png&job=${stamp}`,
          alt: `Distribution of the similarity of two items of the pool. ${numbers.reading}`,
        }),
      ),
      h(
        "figcaption",
        {},
        "How often two items are so similar. ",
        h("a", { href: `${where}/density?format=html`, target: "_blank", rel: "noopener" }, "The full report"),
      ),
    ),
  ];
}

export const evaluationView = (context, { pool }) =>
  reported(context, pool, "evaluation", {
    kind: "evaluate",
    start: "evaluations",
    title: "Evaluation",
    about:
      "Each labelled item is answered by the other ones. That says whether the labels know each other, and which of them look wrong.",
    none: "Not evaluated yet",
    why: "It takes seconds. The more labels there are, the more it can say.",
    button: "Evaluate the labels",
    again: "Evaluate again",
    lack: (found) =>
      noItems(found) ||
      (found.n_labelled < 2 &&
        empty(
          "Too few labels",
          `${plural(found.n_labelled, "item")} labelled, and it takes two to answer each other.`,
          linkButton("Label items", to("pools", found.name, "label"), true),
        )),
    draw: (report, where, name) => evaluation(report, name, context),
  });

const VERDICTS = { better: "good", worse: "bad" };
const points = (x) => signed(100 * x);

function evaluation(report, name, context) {
  const item = (id) => h("a", { href: to("pools", name, "items", id) }, id);
  const vote = report.votes.find((one) => one.k === report.report_k);
  return [
    facts([
      ["Verdict", tag(`${vote.mark} ${vote.verdict}`, VERDICTS[vote.verdict] ?? "")],
      ["Right", percent(vote.accuracy, 1), h("span", { class: "small" }, `${plural(vote.k, "neighbour")} vote`)],
      [
        "Without looking",
        percent(report.baseline_accuracy, 1),
        h("span", { class: "small" }, `always “${clipped(report.baseline_label, 24)}”`),
      ],
      [
        "Difference, points",
        points(vote.effect),
        h("span", { class: "small" }, `${percent(vote.level)} interval ${points(vote.low)} to ${points(vote.high)}`),
      ],
      ["Labelled items", count(report.n)],
    ]),
    h("p", { class: "verdict" }, report.summary),
    card(
      "Labels worth a second look",
      report.suspects.length === 0 ? h("p", {}, "None stands out.") : suspects(report, item, textsOf(name, context)),
    ),
    card(
      "The vote of the neighbours",
      h(
        "p",
        {},
        `Against always answering “${report.baseline_label}”, which is right in ${percent(report.baseline_accuracy, 1)}.`,
      ),
      votes(report),
    ),
    card(
      "Label by label",
      h("p", {}, `How many of each the ${plural(report.report_k, "nearest other item")} get right.`),
      recalls(report),
    ),
    report.confusions.length > 0 && card("Mixed up most", confusions(report)),
  ];
}

function suspects(report, item, texts) {
  const why = (one) =>
    one.copy === null
      ? [`its neighbours say “${one.voted}” with ${percent(one.share)}`]
      : ["says the same as ", item(one.copy), ", which has another label"];
  return [
    report.n_suspects > report.suspects.length &&
      h("p", {}, `The first ${report.suspects.length} of ${count(report.n_suspects)}:`),
    table(
      "Suspect labels, the most suspect first",
      [
        { title: "Item", cell: (one) => item(one.id) },
        { title: "Text", kind: "wide", cell: (one) => texts.of(one.id) },
        { title: "Label", cell: (one) => tag(one.label) },
        { title: "Why", kind: "wide", cell: why },
      ],
      report.suspects,
    ),
  ];
}

function votes(report) {
  const columns = [
    { title: "Neighbours that vote", cell: (vote) => count(vote.k) },
    { title: "Right", kind: "right", cell: (vote) => percent(vote.accuracy, 1) },
    {
      title: "Difference, points",
      kind: "right",
      cell: (vote) => `${points(vote.effect)} (${points(vote.low)} to ${points(vote.high)})`,
    },
    {
      title: "p, adjusted",
      kind: "right",
      cell: (vote) => (vote.p_adjusted < 0.001 ? "< 0.001" : decimal(vote.p_adjusted, 3)),
    },
    { title: "Verdict", cell: (vote) => tag(`${vote.mark} ${vote.verdict}`, VERDICTS[vote.verdict] ?? "") },
  ];
  return table("Votes of the nearest other items", columns, report.votes, "flat");
}

function recalls(report) {
  const right = (row) =>
    row.recall === null ? "–" : measure(row.recall, percent(row.recall), `Right for ${row.label}`);
  return table(
    "Recall of each label",
    [
      { title: "Label", cell: (row) => row.label },
      { title: "Items", kind: "right", cell: (row) => count(row.support) },
      { title: "Right", cell: right },
    ],
    report.labels,
    "flat",
  );
}

function confusions(report) {
  return table(
    "Confusions",
    [
      { title: "Label", cell: (row) => row.label },
      { title: "Voted", cell: (row) => row.voted },
      { title: "Items", kind: "right", cell: (row) => count(row.count) },
    ],
    report.confusions,
    "flat",
  );
}
