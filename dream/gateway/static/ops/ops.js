// The page of operators: it asks for figures every few seconds, draws them, and replays or deletes failed tasks.

import { icon, make, theme } from "../client/theme.js";
import { bars, line, quantile } from "./charts.js";
import { Failed } from "./failed.js";
import { bytes, duration, language, moment, number, say } from "./words.js";

const EVERY_MS = 3000;
const KEPT_S = 900; // samples of the waiting tasks and of the metrics
const OLD_S = 120; // as the alert DreamQueueOld has it
const PAUSE = "M8 5v14M16 5v14";
const RESUME = "M7 4.5v15l12-7.5z";

document.adoptedStyleSheets = [theme];
document.documentElement.lang = language;
document.title = `dream · ${say("ops.title")}`;

const state = { token: "", timer: 0, isPaused: false, figures: null, samples: [] };
const parts = {}; // the page's elements by name
const drawn = {}; // what each section shows, as JSON

// --- asking

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Call the API; resolve to the body, and the address of the next page. */
async function call(path, body) {
  const how = body ? { method: "POST", body: JSON.stringify(body) } : {};
  let answer;
  try {
    answer = await fetch(path, { ...how, headers: { Authorization: `Bearer ${state.token}` }, signal: AbortSignal.timeout(20_000) });
  } catch {
    throw new Refused(0, say("error.connection"));
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.error ?? say("error.status", { status: answer.status }));
  return { body: found, next: /<([^>]*)>; rel="next"/.exec(answer.headers.get("Link") ?? "")?.[1] ?? "" };
}

async function look() {
  clearTimeout(state.timer);
  if (!state.token) return; // signed out meanwhile
  const token = state.token;
  try {
    const { body } = await call("/api/ops");
    if (token !== state.token) return;
    state.figures = body;
    note(body);
    parts.lost.hidden = true;
    show(body);
  } catch (error) {
    if (token !== state.token) return;
    if (error.status === 401 || error.status === 403) return askForToken(error.message);
    lost(error);
  }
  showLife();
  if (!state.isPaused && !document.hidden) state.timer = setTimeout(look, EVERY_MS);
}

function lost(error) {
  if (!state.figures && parts.loading) parts.loading.textContent = error.message;
  const at = state.figures ? moment(state.figures.at) : "–";
  tell(parts.lost, say("ops.lost", { why: error.message, at }));
}

/** Keep the samples that charts and lately need. */
function note(figures) {
  const waiting = figures.queues.map((queue) => queue.waiting ?? queue.due_tasks);
  const sum = waiting.every((each) => each === null) ? null : waiting.reduce((all, each) => all + (each ?? 0), 0);
  state.samples.push({ at: figures.at, waiting: sum, metrics: figures.metrics });
  while (state.samples[0].at < figures.at - KEPT_S) state.samples.shift();
}

document.addEventListener("visibilitychange", () => !document.hidden && state.token && !state.isPaused && look());

// --- entry: by form, or by the address's fragment; the token is removed from there at once

function enter(token) {
  Object.assign(state, { token: token.replace(/^Bearer\s+/i, ""), figures: null, samples: [], isPaused: false });
  keep(state.token);
  build();
  look();
}

function keep(token) {
  try {
    token ? sessionStorage.setItem("dream-ops", token) : sessionStorage.removeItem("dream-ops");
  } catch {
    // no storage: after a reload the operator enters the token again
  }
}

function start() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname);
  let kept = "";
  try {
    kept = sessionStorage.getItem("dream-ops") ?? "";
  } catch {
    // nothing stored
  }
  if (given || kept) enter(given || kept);
  else askForToken();
}

function askForToken(error = "") {
  clearTimeout(state.timer);
  state.token = "";
  keep("");
  const input = make("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "hint problem" });
  const form = make(
    "form",
    { class: "card entry", onsubmit: (event) => (event.preventDefault(), enter(input.value.trim())) },
    make("h1", { text: `dream · ${say("ops.title")}` }),
    make("label", { for: "token", text: say("ops.token") }),
    input,
    make("p", { id: "problem", class: "problem", role: "alert", text: error }),
    make("button", { class: "main", text: say("ops.open") }),
    make("p", { id: "hint", class: "soft" }, ...withCode(say("ops.hint"))),
  );
  document.body.replaceChildren(make("main", { class: "alone" }, form));
  input.focus();
}

addEventListener("hashchange", start);

// --- the frame of the page

function build() {
  for (const name of Object.keys(drawn)) delete drawn[name];
  const section = (name, title, ...more) => {
    parts[name] = make("div", { class: "fill" });
    return make("section", { class: `card ${name}`, "aria-labelledby": `title-${name}` }, make("h2", { id: `title-${name}`, text: title }), ...more, parts[name]);
  };
  parts.life = make("p", { class: "life", text: say("ops.loading") });
  parts.pause = make("button", { class: "bare", onclick: togglePause });
  parts.lost = make("div", { class: "note bad", role: "alert", hidden: true });
  parts.verdict = make("div", { class: "verdict", role: "status" });
  parts.loading = make("p", { class: "soft", text: say("ops.loading") });
  parts.verdict.append(parts.loading);
  parts.tiles = make("dl", { class: "tiles" });
  parts.failed = new Failed(call, look);
  const header = make(
    "header",
    {},
    make("h1", {}, make("a", { href: "/", text: "dream" }), ` · ${say("ops.title")}`),
    parts.life,
    make("div", { class: "tools" }, parts.pause, make("button", { class: "bare", text: say("ops.signout"), onclick: () => askForToken() })),
  );
  const main = make(
    "main",
    {},
    parts.lost,
    parts.verdict,
    parts.tiles,
    section("throughput", say("ops.throughput")),
    section("queues", say("ops.queues")),
    make("div", { class: "column" }, section("processes", say("ops.processes")), parts.failed.element),
    make("div", { class: "column" }, section("times", say("ops.times")), section("storage", say("ops.storage")), section("schedule", say("ops.schedule"))),
  );
  document.body.replaceChildren(header, main);
  showPause();
}

function togglePause() {
  state.isPaused = !state.isPaused;
  showPause();
  showLife();
  if (state.isPaused) clearTimeout(state.timer);
  else look();
}

function showPause() {
  parts.pause.replaceChildren(icon(state.isPaused ? RESUME : PAUSE), say(state.isPaused ? "ops.resume" : "ops.pause"));
}

function showLife() {
  const isLost = !parts.lost.hidden;
  parts.life.dataset.state = state.isPaused ? "paused" : isLost ? "lost" : state.figures ? "live" : "off";
  const word = state.isPaused ? say("ops.paused") : state.figures && !isLost ? say("ops.live") : say("ops.loading");
  parts.life.textContent = state.figures ? `${word} · ${moment(state.figures.at)}` : word;
  document.body.classList.toggle("stale", isLost);
}

// --- the figures

function show(figures) {
  fill("verdict", [problemsOf(figures)], () => verdict(problemsOf(figures)));
  fill("tiles", [figures.queues, figures.tasks, figures.storage?.stored_bytes], () => tiles(figures));
  const waited = state.samples.map(({ at, waiting }) => [at, waiting]);
  fill("throughput", [figures.history, waited], () => throughput(figures, waited));
  fill("queues", [figures.queues], () => queues(figures));
  fill("processes", [figures.processes, figures.runs], () => processes(figures));
  fill("times", [figures.metrics], () => times(figures));
  fill("schedule", [figures.schedule], () => schedule(figures));
  fill("storage", [figures.storage, figures.away.redis], () => storage(figures));
  parts.failed.update(figures.tasks?.failed ?? null, many);
}

/** Draw a part, if its figures have changed. */
function fill(name, figures, render) {
  const text = JSON.stringify(figures);
  if (drawn[name] === text) return;
  drawn[name] = text;
  parts[name].replaceChildren(...render());
}

const many = (count) => (count === null || count === undefined ? "?" : `${number(count)}${count >= state.figures.most_counted ? "+" : ""}`);
const unknown = () => [make("p", { class: "soft", text: say("ops.unknown") })];

/** The text, with each `…` part as code. */
function withCode(text) {
  return text.split("`").map((part, at) => (at % 2 ? make("code", { text: part }) : part));
}

function tell(box, text) {
  if (box.hidden || box.textContent !== text) box.textContent = text;
  box.hidden = false;
}

/** Problems as [title, advice]. Failed tasks are none: somebody always uploads a file that is no picture. */
function problemsOf({ away, processes, queues }) {
  const found = Object.entries(away).map(([source, why]) => [say(`ops.away.${source}`), why]);
  for (const kind of processes ? ["worker", "scheduler"] : []) {
    if (!processes.some((each) => each.kind === kind)) found.push([say(`ops.none.${kind}`), say(`ops.none.${kind}.do`)]);
  }
  for (const { name, oldest_age_s } of queues) {
    if (oldest_age_s > OLD_S) found.push([say("ops.old", { queue: name, age: duration(oldest_age_s - (oldest_age_s % 60)) }), say("ops.old.do")]);
  }
  if (new Set(processes?.map((each) => each.version)).size > 1) found.push([say("ops.versions"), say("ops.versions.do")]);
  return found;
}

function verdict(problems) {
  parts.verdict.dataset.state = problems.length ? "bad" : "good";
  if (!problems.length) return [make("strong", { text: say("ops.well") }), make("p", { text: say("ops.well.more") })];
  const items = problems.map(([title, advice]) => make("li", {}, make("strong", { text: title }), make("p", {}, ...withCode(advice))));
  return [make("p", { class: "count", text: say("ops.problems", { n: problems.length }) }), make("ul", {}, ...items)];
}

function tiles({ queues, tasks, storage }) {
  const sum = (name) => (queues.some((each) => each[name] === null) ? null : queues.reduce((all, each) => all + each[name], 0));
  const shown = [
    ["ops.waiting", many(sum("due_tasks"))],
    ["ops.running", many(sum("running"))],
    ["ops.unfinished", many(tasks?.pictures)],
    ["ops.minute", many(tasks?.last_minute.succeeded)],
    ["ops.failed", many(tasks?.failed), tasks?.failed ? "bad" : ""],
    ["ops.stored", storage ? bytes(storage.stored_bytes) : "–"],
  ];
  return shown.map(([label, value, kind]) => make("div", { class: kind }, make("dt", { text: say(label) }), make("dd", { text: value })));
}

function throughput({ history }, waited) {
  const known = waited.filter(([, value]) => value !== null);
  const now = make("figure", {}, make("figcaption", {}, make("span", { text: say("ops.backlog") }), make("strong", { text: many(known.at(-1)?.[1]) })));
  now.append(line(known, { kind: "waits", label: `${say("ops.backlog")}: ${many(known.at(-1)?.[1])}`, least: 120 }), axis(say("ops.ago", { n: Math.max(2, Math.round((known.at(-1)?.[0] - known[0]?.[0]) / 60) || 0) })));
  if (!history) return [...unknown(), now];
  const minutes = history.minutes;
  const chart = (title, kind, at) => {
    const values = minutes.map((minute) => minute[1 + at]);
    const sum = values.reduce((all, each) => all + each, 0);
    const about = say("ops.done.sum", { n: number(sum), minutes: minutes.length });
    const titles = minutes.map((minute, nth) => `${moment(minute[0])}: ${number(values[nth])}`);
    const padded = [...Array(60 - minutes.length).fill(null), ...values];
    const label = `${title}: ${about}, ${say("ops.peak", { n: number(Math.max(0, ...values)) })}`;
    const head = make("figcaption", {}, make("span", { text: title }), make("strong", { text: about }));
    const picture = bars(padded, { kind, label, titles: [...Array(60 - minutes.length).fill(say("ops.unknown")), ...titles] });
    return make("figure", {}, head, picture, axis(say("ops.ago", { n: 60 }), say("ops.peak", { n: number(Math.max(0, ...values)) })));
  };
  return [chart(say("ops.done"), "done", history.states.indexOf("succeeded")), chart(say("ops.fails"), "fails", history.states.indexOf("failed")), now];
}

function axis(first, middle = "") {
  return make("p", { class: "axis" }, make("span", { text: first }), make("span", { text: middle }), make("span", { text: say("ops.now") }));
}

/**
 * A table. Where it is narrow, its rows become cards; a `slim` one hides its `extra` columns instead.
 * @param {[string, string?][]} headings each with the classes of its column
 */
function table(headings, rows, caption, kind = "cards") {
  const head = headings.map(([text, kind]) => make("th", { scope: "col", role: "columnheader", class: kind, text }));
  const body = rows.map((cells) =>
    make("tr", { role: "row" }, ...cells.map((cell, at) => make("td", { role: "cell", class: headings[at][1], "data-label": headings[at][0] }, cell instanceof Node ? cell : String(cell)))),
  );
  return make(
    "table",
    { role: "table", class: kind, "aria-label": caption },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head)),
    make("tbody", { role: "rowgroup" }, ...body),
  );
}

function queues({ queues }) {
  const rows = queues.map((queue) => [
    make("strong", { text: queue.name }),
    many(queue.due_tasks),
    queue.oldest_age_s === null ? "?" : queue.oldest_age_s ? duration(queue.oldest_age_s) : "–",
    many(queue.running),
    many(queue.waiting),
    many(queue.delayed === null ? queue.delayed_tasks : Math.max(queue.delayed, queue.delayed_tasks ?? 0)),
    until(queue),
  ]);
  const headings = [[say("ops.queue")], [say("ops.due"), "n"], [say("ops.oldest"), "n"], [say("ops.running"), "n"], [say("ops.messages"), "n"], [say("ops.delayed"), "n"], [say("ops.until"), "wide"]];
  return [table(headings, rows, say("ops.queues")), make("p", { class: "soft", text: say("ops.queues.note") })];
}

function until({ first_due_at, last_due_at }) {
  if (first_due_at === null) return "–";
  const [first, last] = [moment(first_due_at), moment(last_due_at)];
  return first === last ? first : `${first} – ${last}`;
}

function processes({ processes, runs }) {
  if (!processes) return unknown();
  const rows = processes.map((each) => [
    make("strong", { text: each.kind }),
    make("span", { class: "name", text: each.name }),
    each.threads ? meter(runs.filter((run) => run.worker === each.name).length, each.threads) : "–",
    each.uptime_s === null ? "–" : duration(each.uptime_s),
    each.runs === null ? "–" : number(each.runs),
    each.version ?? "?",
  ]);
  const headings = [[say("ops.kind")], [say("ops.name"), "wide"], [say("ops.busy"), "wide"], [say("ops.uptime"), "n"], [say("ops.runs"), "n"], [say("ops.version")]];
  const found = [table(headings, rows, say("ops.processes")), make("h3", { text: say("ops.runsnow") })];
  if (!runs.length) return [...found, make("p", { class: "soft", text: say("ops.idle") })];
  const busy = [[say("ops.task"), "wide"], [say("ops.dream"), "n"], [say("ops.lasts"), "n"], [say("ops.in"), "wide"]];
  const shown = runs.map((run) => [make("span", { title: run.task_id, text: run.task }), run.dream_id ?? "–", duration(run.lasts_s), run.worker]);
  return [...found, table(busy, shown, say("ops.runsnow"))];
}

const meter = (value, most) => make("span", { class: "meter" }, track(value / most), say("ops.busy.of", { n: value, max: most }));

/** A bar that is filled to a share of 1. */
function track(share) {
  const filled = make("span", { class: "share" });
  filled.style.width = `${Math.min(100, 100 * share)}%`;
  return make("span", { class: "track", "aria-hidden": "true" }, ...(share ? [filled] : []));
}

// --- times, from histograms

const TIMES = [
  ["dream_task_wait_seconds", ({ queue }) => say("ops.times.wait", { queue })],
  ["dream_task_run_seconds", ({ task }) => say("ops.times.run", { task: task.split(".").at(-1) })],
  ["dream_step_seconds", ({ step }) => say("ops.times.step", { step })],
];

/** The histograms by their text: pairs of the buckets now, and of what came since the first sample. */
function histograms(metrics) {
  const before = state.samples.find((sample) => sample.metrics)?.metrics ?? {};
  const added = new Map();
  const sum = (into, buckets, sign) => buckets.forEach(([, count], at) => (into[at][1] += sign * count));
  for (const [name, text] of TIMES) {
    for (const { labels, buckets } of metrics[name] ?? []) {
      const key = text(labels); // several tasks of one queue are one line
      const known = added.get(key) ?? { all: buckets.map(([bound]) => [bound, 0]), lately: buckets.map(([bound]) => [bound, 0]) };
      const first = before[name]?.find((each) => JSON.stringify(each.labels) === JSON.stringify(labels))?.buckets;
      sum(known.all, buckets, 1);
      sum(known.lately, buckets, 1);
      // A worker that ended takes its figures along.
      if (first && first.at(-1)[1] <= buckets.at(-1)[1]) sum(known.lately, first, -1);
      added.set(key, known);
    }
  }
  return [...added].filter(([, { all }]) => all.at(-1)[1] > 0);
}

function times({ metrics, processes }) {
  if (!metrics) return unknown();
  const workers = processes?.filter((each) => each.kind === "worker") ?? [];
  if (workers.length && !workers.some((each) => each.has_metrics)) return [make("p", { class: "soft", text: say("ops.times.off") })];
  const found = histograms(metrics).map(([text, { all, lately }]) => {
    const chosen = lately.at(-1)[1] > 0 ? lately : all;
    return [text, lately.at(-1)[1], all.at(-1)[1], quantile(chosen, 0.5), quantile(chosen, 0.95)];
  });
  if (!found.length) return [make("p", { class: "soft", text: say("ops.times.none") })];
  const longest = Math.max(...found.map((each) => each[4]));
  // Steps take from milliseconds to minutes, so a bar's length goes with the root.
  const bar = (high) => make("span", { class: "meter" }, track(Math.sqrt(high / (longest || 1))), duration(high));
  const rows = found.map(([text, lately, all, median, high]) => [text, number(lately), number(all), duration(median), bar(high)]);
  const headings = [[say("ops.what"), "wide"], [say("ops.lately"), "n extra"], [say("ops.inall"), "n extra"], [say("ops.median"), "n"], [say("ops.p95")]];
  return [table(headings, rows, say("ops.times"), "slim"), make("p", { class: "soft", text: say("ops.times.note") })];
}

// --- schedule and storage

function schedule({ schedule }) {
  if (!schedule) return unknown();
  const rows = schedule.map(({ name, last_for, outcome, result, next_at }) => [
    make("strong", { text: name }),
    last_for === null ? say("ops.never") : last_for.includes("T") ? moment(Date.parse(last_for) / 1000) : last_for,
    outcome === null ? "–" : make("span", { class: `outcome ${outcome}`, text: say(`outcome.${outcome}`) + (result === null ? "" : `, ${JSON.stringify(result)}`) }),
    next_at === null ? say("ops.app") : moment(next_at),
  ]);
  return [table([[say("ops.entry"), "wide"], [say("ops.last"), "wide"], [say("ops.outcome"), "wide"], [say("ops.next"), "wide"]], rows, say("ops.schedule"))];
}

function storage({ storage, away }) {
  if (away.redis) return unknown();
  if (!storage) return [make("p", { class: "soft", text: say("ops.storage.none") })];
  const { staged, users } = storage;
  const unmeasured = staged.unmeasured ? ` ${say("ops.staged.unmeasured", { n: number(staged.unmeasured) })}` : "";
  const isUnknown = staged.files > 0 && staged.unmeasured === staged.files;
  const size = isUnknown ? say("ops.size.unknown") : bytes(staged.staged_bytes);
  const found = [
    make("p", { class: "total" }, make("strong", { text: bytes(storage.stored_bytes) }), ` ${say("ops.storage.of", { n: storage.pictures })}`),
    make("p", { text: say("ops.staged", { n: staged.files, size }) + (isUnknown ? "" : unmeasured) }),
  ];
  if (users.length) {
    const most = users[0].stored_bytes || 1;
    const items = users.map((user) =>
      make("li", {}, make("span", { text: say("ops.user", { id: user.user_id }) }), track(user.stored_bytes / most), make("span", { class: "n", text: bytes(user.stored_bytes) })),
    );
    found.push(make("h3", { text: say("ops.users") }), make("ol", { class: "users" }, ...items));
  }
  return [...found, make("p", { class: "soft", text: say("ops.measured", { at: moment(storage.at) }) })];
}

start();
