// The base of the custom elements: a shadow root with the shared look, and the client that the attributes name.

import { DreamClient } from "./api.js";
import { theme } from "./theme.js";

export class DreamElement extends HTMLElement {
  static observedAttributes = ["dream", "token", "base"];

  #given = null; // the client that the page has set
  #client = null;
  #isShared = false;
  #options = "";
  #use = null;

  /** @param {CSSStyleSheet[]} sheets */
  constructor(...sheets) {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [theme, ...sheets];
  }

  /** The client in use. A page may set its own; elements with equal attributes share one. */
  get client() {
    return this.#client;
  }

  set client(client) {
    this.#given = client;
    this.#choose();
  }

  /**
   * Use a client from now on, until the signal aborts. Elements override it.
   * @param {DreamClient} _client
   * @param {AbortSignal} _signal
   */
  attach(_client, _signal) {}

  connectedCallback() {
    this.#choose();
  }

  disconnectedCallback() {
    this.#leave();
  }

  attributeChangedCallback() {
    // Several may change together, and those that the parser has set are in use already.
    queueMicrotask(() => this.isConnected && !this.#given && this.#options !== this.#attributes() && this.#choose());
  }

  #attributes() {
    return JSON.stringify(DreamElement.observedAttributes.map((name) => this.getAttribute(name)));
  }

  #choose() {
    this.#leave();
    this.#options = this.#attributes();
    const [dream, token, base] = DreamElement.observedAttributes.map((name) => this.getAttribute(name) ?? undefined);
    if (!this.isConnected || !(this.#given || (dream && token))) return;
    this.#isShared = !this.#given;
    this.#client = this.#given ?? DreamClient.shared({ dream, token, base });
    this.#use = new AbortController();
    this.attach(this.#client, this.#use.signal);
  }

  #leave() {
    this.#use?.abort();
    if (this.#isShared && this.#client) DreamClient.release(this.#client);
    this.#use = this.#client = null;
    this.#isShared = false;
  }
}
