// The page of one dream: it lists the pictures from the database, and reads again what events name.

import { blurred } from "./client/thumbhash.js";

const element = (id) => document.getElementById(id);
const WORDS = { pending: "waiting", processing: "processing", completed: "ready", failed: "failed" };
const WAITING = ["pending", "processing"];
const REJECTED = 4001;
const SILENCE_MS = 40_000; // the server pings every 15 s
const RETRY_MAX_MS = 10_000;
const PAGE_PICTURES = 100;
const FRAME_RATIO = 4 / 3; // as in page.css
const REFRESH_MS = 300; // events within this time cause one request
const NEWS_MS = 10_000; // a message about finished work stays this long
// The limits of one request; the server's limits are higher by default.
const BATCH_FILES = 20;
const BATCH_BYTES = 100e6;
const MAX_BYTES = Number(element("files").dataset.maxBytes);
const NEEDS_COOKIE = document.body.dataset.access === "owner"; // an <img> sends no token

const state = { dream: 0, token: "", seq: "", socket: null, retryMs: 500, retry: 0, silence: 0, refresh: 0 };
const shown = new Map(); // image id → { picture, item }
// The list shows pictures up to `last`; `next` is the address of the rest; `isStale` means that all must be read again.
const list = { last: null, next: "", isStale: true, isReading: false, tasks: new Set() };
const said = { about: "", timer: 0 }; // the subject of the message
const queue = []; // batches of files to send
const progressOf = new Map(); // task id → 0–100
const deleting = new Set(); // image ids
const sent = new Set(); // tasks that this page has uploaded

// --- entry: by form, or by the address's fragment; the token is removed from there at once

function enter(dream, token) {
  Object.assign(state, { dream: Number(dream), token: token.replace(/^Bearer\s+/i, ""), seq: "" });
  try {
    sessionStorage.setItem("dream", JSON.stringify({ dream, token }));
  } catch {
    // no storage: after a reload the user enters the token again
  }
  progressOf.clear();
  shown.clear();
  Object.assign(list, { last: null, next: "", isStale: true });
  list.tasks.clear();
  element("pictures").replaceChildren();
  element("refused").replaceChildren();
  queue.length = 0;
  say("");
  showError("");
  connect();
}

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) history.replaceState(null, "", `${location.pathname}#dream=${given.get("dream") ?? ""}`);
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem("dream") ?? "{}");
  } catch {
    // nothing stored
  }
  const dream = given.get("dream") || kept.dream || "";
  const token = given.get("token") || (String(kept.dream) === String(dream) ? kept.token : "") || "";
  element("dream").value = dream;
  element("token").value = token;
  if (/^\d{1,19}$/.test(dream) && token) enter(dream, token);
}

element("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(element("dream").value.trim(), element("token").value.trim());
});
addEventListener("hashchange", readFragment);

// --- the socket

function connect() {
  clearTimeout(state.retry);
  if (state.socket) {
    state.socket.onclose = null;
    state.socket.close();
  }
  const query = new URLSearchParams({ token: state.token });
  if (state.seq) query.set("since", state.seq);
  const address = new URL(`/ws/dream-images/${state.dream}/?${query}`, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.onmessage = (event) => receive(socket, JSON.parse(event.data));
  socket.onclose = (event) => closed(event);
  state.socket = socket;
  showConnection("lost", "connecting…");
}

function receive(socket, message) {
  clearTimeout(state.silence);
  state.silence = setTimeout(() => connect(), SILENCE_MS);
  if (message.seq) state.seq = message.seq;
  if (message.type === "connection_established") {
    state.retryMs = 500;
    element("work").hidden = false;
    showConnection("on", "live");
    list.isStale = true;
    refreshSoon();
  } else if (message.type === "image_update") {
    update(message);
  } else if (message.type === "ping") {
    socket.send(JSON.stringify({ type: "pong" }));
  }
}

function closed(event) {
  clearTimeout(state.silence);
  if (event.code === REJECTED) {
    element("work").hidden = true;
    showConnection("off", "not connected");
    showError(event.reason || "The token was not accepted.");
    return;
  }
  showConnection("lost", "connection lost; trying again…");
  state.retry = setTimeout(connect, state.retryMs * (0.75 + Math.random() / 2));
  state.retryMs = Math.min(state.retryMs * 2, RETRY_MAX_MS);
}

addEventListener("online", () => state.token && state.socket?.readyState !== WebSocket.OPEN && connect());

function update(message) {
  if (message.task_id) {
    if (message.status === "processing") progressOf.set(message.task_id, message.progress ?? 0);
    else progressOf.delete(message.task_id);
    for (const { picture, item } of shown.values()) if (picture.task_id === message.task_id) fill(item, picture);
  }
  const isOver = !message.status.endsWith("processing");
  const about = message.task_id ? `task ${message.task_id}` : "work";
  if (message.message) say(message.message, about, isOver ? NEWS_MS : 0);
  else if (isOver) unsay(about);
  if (message.status === "delete_completed") message.images.forEach(forgetDeleted);
  else if (!message.task_id || message.status === "delete_failed") list.isStale = true;
  else if (!message.status.startsWith("delete_")) list.tasks.add(message.task_id);
  refreshSoon();
}

// --- the pictures: read page by page, then only the uploads that events name

async function call(method, path, headers = {}) {
  const answer = await fetch(path, { method, headers: { Authorization: `Bearer ${state.token}`, ...headers } });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `the server answered ${answer.status}`);
  const next = /<([^>]*)>; rel="next"/.exec(answer.headers.get("Link") ?? "");
  return { body, next: next ? next[1] : "" };
}

const address = (rest = "") => `/api/dreams/${state.dream}/images${rest}`;

function refreshSoon(delayMs = REFRESH_MS) {
  state.refresh ||= setTimeout(refresh, delayMs);
}

async function refresh() {
  state.refresh = 0;
  if (list.isReading) return refreshSoon();
  const dream = state.dream;
  const isHere = () => dream === state.dream;
  list.isReading = true;
  try {
    if (list.isStale) await readAgain(isHere);
    for (const task of isHere() ? list.tasks : []) await readTask(task, isHere);
    if (isHere()) unsay("list");
  } catch (error) {
    if (isHere()) say(`The list could not be read: ${error.message}`, "list");
    refreshSoon(RETRY_MAX_MS);
  } finally {
    list.isReading = false;
    tidy();
  }
}

/** Read all shown pictures again: as many pages as needed, at least one. */
async function readAgain(isHere) {
  if (NEEDS_COOKIE) await call("POST", "/api/auth/media-cookie");
  list.isStale = false;
  list.tasks.clear();
  const end = list.last;
  const there = new Set();
  let next = address(`?limit=${PAGE_PICTURES}`);
  let last = null;
  try {
    do {
      const page = await call("GET", next);
      if (!isHere()) return;
      page.body.forEach((picture) => there.add(picture.id) && put(picture));
      last = page.body.at(-1) ?? last;
      next = page.next;
    } while (next && end && isBefore(last, end));
  } catch (error) {
    list.isStale = true;
    throw error;
  }
  for (const { picture } of [...shown.values()]) {
    if (!there.has(picture.id) && (!next || !isBefore(last, picture))) forget(picture.id);
  }
  Object.assign(list, { last, next });
}

async function readMore() {
  if (!list.next || list.isReading || list.isStale) return;
  const dream = state.dream;
  list.isReading = true;
  try {
    const { body, next } = await call("GET", list.next);
    if (dream !== state.dream) return;
    body.forEach(put);
    Object.assign(list, { last: body.at(-1) ?? list.last, next });
  } catch (error) {
    say(`The list could not be read: ${error.message}`, "list");
  } finally {
    list.isReading = false;
    tidy();
  }
}

/** Read the pictures of one upload. Pictures after `last` come with their page later, except own uploads. */
async function readTask(task, isHere) {
  const there = new Set();
  let next = address(`?${new URLSearchParams({ task_id: task, limit: PAGE_PICTURES })}`);
  while (next) {
    const page = await call("GET", next);
    if (!isHere()) return;
    for (const picture of page.body) {
      there.add(picture.id);
      const isInside = !list.next || (list.last && !isBefore(list.last, picture));
      if (isInside || shown.has(picture.id) || sent.has(task)) put(picture);
    }
    next = page.next;
  }
  for (const { picture } of [...shown.values()]) {
    if (picture.task_id === task && !there.has(picture.id)) forget(picture.id);
  }
  list.tasks.delete(task);
}

function isBefore(one, other) {
  return one.position < other.position || (one.position === other.position && one.id < other.id);
}

/** Show a picture at its place. */
function put(picture) {
  const known = shown.get(picture.id);
  const item = known?.item ?? newItem(picture);
  shown.set(picture.id, { picture, item });
  fill(item, picture);
  if (known && known.picture.position === picture.position) return;
  const tiles = element("pictures");
  let after = tiles.lastElementChild;
  while (after && (after === item || isBefore(picture, shown.get(Number(after.dataset.id)).picture))) {
    after = after.previousElementSibling;
  }
  tiles.insertBefore(item, after ? after.nextElementSibling : tiles.firstElementChild);
}

function forget(id) {
  shown.get(id)?.item.remove();
  shown.delete(id);
  deleting.delete(id);
}

/** Remove a deleted picture. Its URL names it, because the event's id may be the caller's own. */
function forgetDeleted({ id, url }) {
  for (const { picture } of [...shown.values()]) {
    if (url ? picture.url === url : picture.id === id) forget(picture.id);
  }
}

/** Update the rest of the page after the list has changed. */
function tidy() {
  element("empty").hidden = shown.size > 0 || Boolean(list.next);
  element("more").hidden = !list.next;
  // The message about a task ends with the task, even where its last event was missed.
  const isWorking = ({ picture }) => WAITING.includes(picture.state) && said.about === `task ${picture.task_id}`;
  const isOver = said.about.startsWith("task ") && !said.timer && !list.tasks.has(said.about.slice("task ".length));
  if (isOver && !list.isStale && ![...shown.values()].some(isWorking)) unsay(said.about);
}

element("more").addEventListener("click", readMore);
new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && readMore()).observe(element("more"));

function newItem(picture) {
  const item = element("picture").content.firstElementChild.cloneNode(true);
  item.dataset.id = picture.id;
  item.querySelector(".name").textContent = picture.filename;
  item.querySelector(".name").title = picture.filename;
  const button = item.querySelector("button");
  button.setAttribute("aria-label", `Delete ${picture.filename}`);
  button.addEventListener("click", () => remove(picture.id, button));
  return item;
}

function fill(item, picture) {
  item.dataset.state = picture.state;
  item.querySelector(".state").textContent = WORDS[picture.state] ?? picture.state;
  const bar = item.querySelector("progress");
  bar.hidden = !WAITING.includes(picture.state);
  const progress = progressOf.get(picture.task_id);
  if (progress === undefined) bar.removeAttribute("value");
  else bar.value = progress;
  bar.setAttribute("aria-label", `Progress of ${picture.filename}`);
  item.querySelector(".detail").textContent = picture.error ?? detail(picture);
  item.querySelector("button").disabled = deleting.has(picture.id);
  if (picture.url && /^https?:/.test(picture.url)) show(item.querySelector(".frame"), picture);
}

/** Show a stored picture in its frame: its placeholder at once, and the file that is wide enough for this screen. */
function show(frame, picture) {
  const image = frame.querySelector("img");
  const [x, y] = (picture.focus ?? picture.found_focus ?? [0.5, 0.5]).map((share) => `${100 * share}%`);
  image.style.objectPosition = `${x} ${y}`;
  if (image.dataset.url === picture.url) return; // a signed URL is another one after a while
  image.dataset.url = picture.url;
  const placeholder = picture.placeholder && blurred(picture.placeholder);
  if (placeholder) frame.style.background = `${picture.dominant_colour ?? ""} url(${placeholder}) ${x} ${y} / cover no-repeat`;
  // A picture that is wider than its frame is cropped, so it is shown larger than the frame.
  const stretch = Math.max(1, picture.width_px / picture.height_px / FRAME_RATIO || 1);
  image.sizes = `(max-width: 25rem) ${Math.ceil(90 * stretch)}vw, ${Math.ceil(16 * stretch)}rem`;
  const srcset = picture.signed_srcset ?? picture.srcset;
  if (srcset) image.srcset = srcset;
  image.src = picture.signed_url ?? picture.url;
  image.alt = picture.filename;
  image.hidden = false;
}

function detail(picture) {
  if (!picture.width_px) return "";
  return `${picture.width_px} × ${picture.height_px} px, ${sizeText(picture.size_bytes)}`;
}

function sizeText(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}

async function remove(id, button) {
  deleting.add(id);
  button.disabled = true;
  try {
    unsay("deletion");
    await call("DELETE", address(`/${id}`));
    forget(id);
    tidy();
  } catch (error) {
    deleting.delete(id);
    button.disabled = false;
    say(`Not deleted: ${error.message}`, "deletion");
  }
}

// --- upload: batches of files, one after another

function send(files) {
  if (files.length === 0) return;
  unsay("upload");
  let batch = null;
  for (const file of files) {
    if (file.size > MAX_BYTES) {
      showRefused(file.name, tooLarge(file.size)); // no need to send a large file
      continue;
    }
    const isFull = batch && (batch.files.length === BATCH_FILES || batch.bytes + file.size > BATCH_BYTES);
    if (!batch || isFull) queue.push((batch = { files: [], bytes: 0, dream: state.dream }));
    batch.files.push(file);
    batch.bytes += file.size;
  }
  if (element("sending").hidden && queue.length > 0) sendNext();
}

/** The server's sentence about such a file (`dream.messages.arguments.refusal_of`). */
function tooLarge(bytes) {
  const text = (size) => (size >= 1e5 ? `${(size / 1e6).toFixed(1)} MB` : `${size} bytes`);
  const [size, most] = [text(bytes), text(MAX_BYTES)];
  return size === most ? `the file has more than the ${most} allowed` : `the file has ${size}, more than the ${most} allowed`;
}

async function sendNext() {
  const bar = element("sending");
  bar.hidden = false;
  let accepted = 0;
  let reason = "";
  for (let batch = queue.shift(); batch; batch = queue.shift()) {
    bar.value = 0;
    const answer = await post(batch.files, (share) => (bar.value = 100 * share));
    if (batch.dream !== state.dream) continue;
    accepted += answer.files;
    for (const { index, name, error } of answer.refused) showRefused(name || batch.files[index]?.name, error);
    if (answer.error) {
      reason = answer.refused.length === 1 ? answer.refused[0].error : answer.error;
      if (answer.refused.length === 0) showRefused(namesOf(batch.files), answer.error);
    }
    if (accepted) say(`${count(accepted)} uploaded; being processed.`, `task ${answer.task_id}`);
    else if (reason) say(`Not uploaded: ${reason}`, "upload");
    if (answer.task_id) {
      sent.add(answer.task_id);
      list.tasks.add(answer.task_id);
    }
    refreshSoon();
  }
  bar.hidden = true;
}

/** Send files; resolve to the server's answer, always with `files` and `refused`, and with `error` after a failure. */
function post(files, onProgress) {
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const request = new XMLHttpRequest(); // fetch reports no progress
  request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
  request.open("POST", `/api/dreams/${state.dream}/images`);
  request.setRequestHeader("Authorization", `Bearer ${state.token}`);
  request.send(form);
  return new Promise((resolve) => {
    request.onloadend = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // no JSON: the connection was lost, or another server answered
      }
      const failed = request.status ? `the server answered ${request.status}` : "the connection was lost";
      const error = request.status === 202 ? "" : (body.error ?? failed);
      resolve({ files: 0, refused: [], ...body, error });
    };
  });
}

function count(files) {
  return files === 1 ? "1 file" : `${files} files`;
}

function namesOf(files) {
  return files.length === 1 ? files[0].name : `${files[0].name} and ${files.length - 1} more`;
}

function showRefused(name, reason) {
  const item = element("refusal").content.firstElementChild.cloneNode(true);
  item.querySelector("strong").textContent = name;
  item.querySelector("span").textContent = reason;
  const button = item.querySelector("button");
  button.setAttribute("aria-label", `Dismiss ${name}`);
  button.addEventListener("click", () => item.remove());
  element("refused").append(item);
}

element("files").addEventListener("change", (event) => {
  send([...event.target.files]);
  event.target.value = "";
});

// Files may be dropped anywhere: the browser would open a file that the page does not take, and leave the page.
const drop = element("drop");
const isField = (event) => event.target instanceof HTMLInputElement && event.target.type !== "file";
const takes = (event) => event.dataTransfer.types.includes("Files") && !element("work").hidden && !state.isDraggingOwn;

addEventListener("dragstart", () => (state.isDraggingOwn = true)); // a picture of this page is not uploaded
for (const name of ["dragend", "pointerdown"]) addEventListener(name, () => (state.isDraggingOwn = false));
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => {
    if (isField(event) && !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = takes(event) ? "copy" : "none";
    drop.classList.toggle("over", takes(event));
  });
}
addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
addEventListener("drop", (event) => {
  drop.classList.remove("over");
  if (isField(event) && !event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  if (!takes(event)) return;
  const files = [];
  for (const item of [...event.dataTransfer.items].filter((each) => each.kind === "file")) {
    const entry = item.webkitGetAsEntry();
    if (entry?.isDirectory) showRefused(entry.name, "this is a folder; drop the pictures in it");
    else files.push(item.getAsFile());
  }
  send(files);
});

// --- messages

/** Show a message until `unsay` with the same subject, or for `lastsMs`. */
function say(text, about = "", lastsMs = 0) {
  clearTimeout(said.timer);
  said.about = about;
  said.timer = lastsMs ? setTimeout(() => say(""), lastsMs) : 0;
  element("message").textContent = text;
}

function unsay(about) {
  if (said.about === about) say("");
}

function showConnection(name, text) {
  element("connection").dataset.state = name;
  element("connection").textContent = text;
}

function showError(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

readFragment();
