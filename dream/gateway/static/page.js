// The page of one dream: its pictures as the database has them, kept fresh by the events of its socket.

const element = (id) => document.getElementById(id);
const WORDS = { pending: "waiting", processing: "processing", completed: "ready", failed: "failed" };
const REJECTED = 4001;
const SILENCE_MS = 40_000; // the server pings every 15 s
const RETRY_MAX_MS = 10_000;

const state = { dream: 0, token: "", seq: "", socket: null, retryMs: 500, retry: 0, silence: 0, refresh: 0 };
const progressOf = new Map(); // task id → 0–100
const deleting = new Set(); // image ids

// --- entry: by form, or by the address's fragment, from which the token is taken away at once

function enter(dream, token) {
  Object.assign(state, { dream: Number(dream), token: token.replace(/^Bearer\s+/i, ""), seq: "" });
  try {
    sessionStorage.setItem("dream", JSON.stringify({ dream, token }));
  } catch {
    // storage is off: a reload asks again
  }
  progressOf.clear();
  element("pictures").replaceChildren();
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
    // nothing kept
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
  }
  if (message.message) element("message").textContent = message.message;
  refreshSoon();
}

// --- the pictures

async function call(method, path, headers = {}) {
  const answer = await fetch(`/api/dreams/${state.dream}/images${path}`, {
    method,
    headers: { Authorization: `Bearer ${state.token}`, ...headers },
  });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `the server answered ${answer.status}`);
  return body;
}

function refreshSoon() {
  clearTimeout(state.refresh);
  state.refresh = setTimeout(refresh, 100);
}

async function refresh() {
  try {
    show(await call("GET", ""));
  } catch (error) {
    element("message").textContent = `The list could not be read: ${error.message}`;
  }
}

function show(pictures) {
  const list = element("pictures");
  const known = new Map([...list.children].map((item) => [Number(item.dataset.id), item]));
  const items = pictures.map((picture) => {
    const item = known.get(picture.id) ?? newItem(picture);
    known.delete(picture.id);
    fill(item, picture);
    return item;
  });
  for (const [id, item] of known) {
    deleting.delete(id);
    item.remove();
  }
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  element("empty").hidden = items.length > 0;
}

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
  bar.hidden = !["pending", "processing"].includes(picture.state);
  const progress = progressOf.get(picture.task_id);
  if (progress === undefined) bar.removeAttribute("value");
  else bar.value = progress;
  bar.setAttribute("aria-label", `Progress of ${picture.filename}`);
  item.querySelector(".detail").textContent = picture.error ?? detail(picture);
  item.querySelector("button").disabled = deleting.has(picture.id);
  const image = item.querySelector("img");
  if (picture.url && /^https?:/.test(picture.url) && image.src !== picture.url) {
    image.src = picture.url;
    image.alt = picture.filename;
    image.hidden = false;
  }
}

function detail(picture) {
  if (!picture.width_px) return "";
  return `${picture.width_px} × ${picture.height_px} px, ${Math.ceil(picture.size_bytes / 1024)} KiB`;
}

async function remove(id, button) {
  deleting.add(id);
  button.disabled = true;
  try {
    await call("DELETE", `/${id}`);
    refreshSoon();
  } catch (error) {
    deleting.delete(id);
    button.disabled = false;
    element("message").textContent = `Not deleted: ${error.message}`;
  }
}

// --- upload

function send(files) {
  if (files.length === 0) return;
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
  const bar = element("sending");
  bar.hidden = false;
  bar.value = 0;
  request.upload.onprogress = (event) => event.lengthComputable && (bar.value = (100 * event.loaded) / event.total);
  request.onloadend = () => {
    bar.hidden = true;
    let body = {};
    try {
      body = JSON.parse(request.responseText);
    } catch {
      // no JSON: the connection was lost
    }
    element("message").textContent =
      request.status === 202 ? "Uploaded; being processed." : `Not uploaded: ${body.error ?? "the connection was lost"}`;
    refreshSoon();
  };
  request.open("POST", `/api/dreams/${state.dream}/images`);
  request.setRequestHeader("Authorization", `Bearer ${state.token}`);
  request.send(form);
}

const drop = element("drop");
element("files").addEventListener("change", (event) => {
  send([...event.target.files]);
  event.target.value = "";
});
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  send([...event.dataTransfer.files]);
});

// --- what is said

function showConnection(name, text) {
  element("connection").dataset.state = name;
  element("connection").textContent = text;
}

function showError(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

readFragment();
