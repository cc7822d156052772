// Long work: watched while it runs, shown with its progress, stopped on demand.

import { get, path, post, Problem } from "./api.js";
import { clipped, count, fill, h, when } from "./dom.js";
import { action, announce, tag } from "./ui.js";

const NAMES = {
  embed: "Embedding",
  select: "Selection",
  density: "Density report",
  evaluate: "Evaluation",
};

const FASTEST = 700;
const SLOWEST = 4000;
const IDLE = 15000;

export const runs = (job) => job.state === "queued" || job.state === "running";

/**
 * Look at the jobs of a pool until `signal` aborts: often while one runs, seldom else, never while nobody looks.
 * `changed(jobs, over)` gets all of them, and those that have ended since the last look. Returns a function that
 * makes it look at once.
 */
export function watch(pool, signal, changed) {
  let active = new Set();
  let timer = 0;
  let pause = FASTEST;

  async function look() {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    try {
      const { jobs } = await get(`v1/jobs?pool=${encodeURIComponent(pool)}&limit=20`, { signal });
      const over = jobs.filter((job) => active.has(job.id) && !runs(job));
      active = new Set(jobs.filter(runs).map((job) => job.id));
      await changed(jobs, over);
      pause = active.size === 0 ? IDLE : over.length > 0 ? FASTEST : Math.min(SLOWEST, pause * 1.2);
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      pause = problem.retryAfter ? problem.retryAfter * 1000 : SLOWEST;
    }
    if (active.size > 0) pause = Math.min(pause, SLOWEST);
    timer = setTimeout(look, pause);
  }

  document.addEventListener("visibilitychange", look, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  look();
  return () => {
    pause = FASTEST;
    return look();
  };
}

/** How a job has ended, in a line. */
export const outcome = (job) => (job.state === "done" ? `Done: ${job.message}` : `${NAMES[job.kind]} ${job.state}`);

/** One job that runs or waits. */
export function running(job, canCancel) {
  const known = job.total !== null && job.total > 0;
  const name = NAMES[job.kind];
  const stop = async () => {
    await post(`${path("v1", "jobs", job.id)}/cancel`);
    announce(`${name} is being stopped`);
  };
  return h(
    "li",
    { class: "job" },
    h(
      "div",
      { class: "job-head" },
      h("strong", {}, name),
      h("span", { class: "soft" }, ` ${job.cancel ? "is being stopped" : job.message}`),
    ),
    h(
      "div",
      { class: "progress" },
      h("progress", known ? { max: job.total, value: job.done, "aria-label": name } : { "aria-label": name }),
      h(
        "span",
        { class: "small" },
        known ? `${count(job.done)} of ${count(job.total)} ${job.unit}` : job.state === "queued" ? "waits" : "runs",
      ),
      canCancel && !job.cancel && action("Stop", stop, "small-button"),
    ),
  );
}

const KINDS = { done: "good", failed: "bad", cancelled: "", queued: "open", running: "open" };

export const stateTag = (state) => tag(state, KINDS[state] ?? "");

/** Jobs that have ended, newest first, with why they failed. */
export function ended(jobs) {
  return h(
    "ul",
    { class: "plain" },
    jobs.map((job) =>
      h(
        "li",
        {},
        stateTag(job.state),
        h("span", {}, ` ${NAMES[job.kind]} · `),
        h("span", { class: "soft" }, when(job.finished_at ?? job.created_at)),
        job.state === "failed" && h("p", { class: "fault" }, job.error?.detail ?? job.message),
        job.state === "done" && job.message && h("span", { class: "soft" }, ` · ${clipped(job.message, 120)}`),
      ),
    ),
  );
}

/** A place for the jobs of one kind, which calls `done` when one has ended. Returns the element and a way to look now. */
export function progressOf(pool, kind, signal, done) {
  const place = h("div", { "aria-live": "off" });
  const look = watch(pool, signal, async (jobs, over) => {
    const mine = jobs.filter((job) => job.kind === kind);
    const failed = over.find((job) => job.kind === kind && job.state === "failed");
    if (mine.some(runs))
      fill(
        place,
        h(
          "ul",
          { class: "plain" },
          mine.filter(runs).map((job) => running(job, false)),
        ),
      );
    else if (failed)
      fill(
        place,
        h(
          "div",
          { class: "problem", role: "alert" },
          h("p", { class: "problem-title" }, `${NAMES[kind]} failed`),
          h("p", {}, failed.error?.detail ?? failed.message),
        ),
      );
    else fill(place);
    if (over.some((job) => job.kind === kind && job.state === "done")) await done();
  });
  return [place, look];
}
