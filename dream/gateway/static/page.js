// dream's own page: entry with a token, the two elements, and what the connection does.

import { DreamClient } from "./dream-client.js";
import { theme } from "./client/theme.js";
import { language, say, sentence } from "./client/words.js";

const NEWS_MS = 8_000;
const element = (id) => document.getElementById(id);
const [upload, gallery] = ["dream-upload", "dream-gallery"].map((name) => document.querySelector(name));
let client = null;
let use = null; // aborts when the page leaves its client
let newsTimer = 0;

document.adoptedStyleSheets = [theme];
document.documentElement.lang = language;
for (const each of document.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);

// --- entry: by form, or by the address's fragment; the token is removed from there at once

function enter(dream, token) {
  leave();
  try {
    sessionStorage.setItem("dream", JSON.stringify({ dream, token }));
  } catch {
    // no storage: after a reload the user enters the token again
  }
  client = new DreamClient({ dream, token });
  use = new AbortController();
  const listen = (name, listener) => client.addEventListener(name, listener, { signal: use.signal });
  listen("state", showState);
  listen("pictures", showCount);
  listen("problem", showProblem);
  listen("update", ({ detail }) => !detail.task_id && detail.message && showNews(sentence(detail.message)));
  client.connect();
  element("name").textContent = say("page.name", { dream: client.dream });
  showState();
  showProblem();
}

function leave() {
  const old = client;
  use?.abort();
  client = upload.client = gallery.client = null;
  old?.close();
  element("name").textContent = "";
}

function forget() {
  try {
    sessionStorage.removeItem("dream");
  } catch {
    // nothing stored
  }
  history.replaceState(null, "", location.pathname);
  element("token").value = "";
}

function readAddress() {
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
  if (/^\d{1,19}$/.test(dream) && token) enter(dream, token);
  else if (!client) {
    showState();
    (dream ? element("token") : element("dream")).focus();
  }
}

element("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(element("dream").value.trim(), element("token").value.trim());
});
addEventListener("hashchange", readAddress);
// Without a dream nothing takes a file, and the browser would leave the page for it.
const isField = (event) => event.target instanceof HTMLInputElement && !event.dataTransfer.types.includes("Files");
for (const name of ["dragenter", "dragover", "drop"]) {
  addEventListener(name, (event) => upload.client || isField(event) || event.preventDefault());
}

element("sign-out").addEventListener("click", async () => {
  const own = client;
  const open = own.uploads.items.filter((each) => !each.error).length;
  if (open > 0 && !confirm(say("page.unsent", { n: open }))) return;
  await gallery.settle();
  own.uploads.items.forEach((each) => own.uploads.dismiss(each)); // no visit is told of them
  const error = await own.logOut().then(() => null, (failure) => failure);
  if (own !== client) return; // a second click
  leave();
  forget();
  showState();
  // A token without a name cannot be revoked: it ends by itself.
  showNews(say(error && error.status !== 401 ? "page.forgotten" : "page.left"));
  element("token").focus();
});

// --- the connection

function showState() {
  const state = client?.state ?? "off";
  const isIn = Boolean(client) && state !== "refused";
  element("connection").dataset.state = state;
  element("connection").firstElementChild.textContent = isIn ? say(`page.${state}`) : "";
  element("error").textContent = state === "refused" ? sentence(client.reason || say("page.refused")) : "";
  element("error").hidden = state !== "refused";
  element("entry").hidden = isIn;
  if (state === "live" || !isIn) element("work").hidden = upload.hidden = element("sign-out").hidden = !isIn;
  if (state === "live" && gallery.client !== client) gallery.client = upload.client = client;
  if (state === "refused") {
    upload.client = gallery.client = null;
    element("token").value = "";
    element("token").focus();
  }
}

function showProblem() {
  element("problem").hidden = !client.problem;
  element("problem").textContent = client.problem ? say("page.problem", { error: client.problem.message }) : "";
}

/** The invitation is large while there is no picture. */
function showCount() {
  upload.toggleAttribute("compact", client.pictures.size > 0 || client.hasMore);
}

/** News never replace an error: those have places of their own. */
function showNews(text) {
  clearTimeout(newsTimer);
  element("news").textContent = text;
  element("news").hidden = false;
  newsTimer = setTimeout(() => (element("news").hidden = true), NEWS_MS);
}

readAddress();
