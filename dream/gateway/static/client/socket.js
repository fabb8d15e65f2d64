// The live socket of a dream: it connects again by itself, with what it missed, until the token is refused.

const REJECTED = 4001;
const SILENCE_MS = 40_000; // the server pings every 15 s
const PROBE_MS = 4_000;
const RETRY_MS = 500;
const RETRY_MAX_MS = 10_000;

export class LiveSocket {
  #address;
  #token;
  #tried = "";
  #onMessage;
  #onState;
  #socket = null;
  #seq = "";
  #attempt = 0; // what an older attempt still does is ignored
  #retryMs = RETRY_MS;
  #retry = 0;
  #silence = 0;
  #isRenewed = false;
  #isWanted = false;
  #isConnecting = false;

  /**
   * @param {URL} address without a query
   * @param {(refused?: string) => Promise<string>} token gives another token than the refused one, if it can be had
   * @param {(message: object) => void} onMessage
   * @param {(state: string, reason?: string) => void} onState
   */
  constructor(address, token, onMessage, onState) {
    this.#address = address;
    this.#token = token;
    this.#onMessage = onMessage;
    this.#onState = onState;
  }

  open() {
    if (this.#isWanted) return;
    this.#isWanted = true;
    this.#onState("connecting");
    this.#connect();
  }

  close() {
    this.#isWanted = false;
    this.#drop();
  }

  /** The machine may have slept, or its network has changed: connect now, or ask whether the server is still there. */
  wake() {
    if (!this.#isWanted || this.#isConnecting) return;
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ type: "ping" }));
      this.#expect(PROBE_MS);
    } else {
      this.#retryMs = RETRY_MS;
      this.#connect();
    }
  }

  async #connect(refused, reason) {
    this.#drop();
    this.#isConnecting = true;
    const attempt = this.#attempt;
    let token;
    try {
      token = await this.#token(refused);
    } catch (error) {
      if (attempt === this.#attempt) this.#closed({ code: error.status === 401 ? REJECTED : 0, reason: error.message });
      return;
    }
    if (attempt !== this.#attempt) return;
    if (token === refused) return this.#closed({ code: REJECTED, reason });
    this.#tried = token;
    const address = new URL(this.#address);
    address.protocol = address.protocol.replace("http", "ws");
    if (this.#seq) address.searchParams.set("since", this.#seq);
    const socket = (this.#socket = new WebSocket(address));
    socket.onopen = () => socket.send(JSON.stringify({ type: "authenticate", token })); // no log has the token
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#closed(event);
    this.#expect(SILENCE_MS);
  }

  #receive(message) {
    this.#expect(SILENCE_MS);
    if (message.seq) this.#seq = message.seq;
    if (message.type === "ping") this.#socket.send(JSON.stringify({ type: "pong" }));
    if (message.type === "connection_established") {
      this.#retryMs = RETRY_MS;
      this.#isRenewed = this.#isConnecting = false;
      this.#onState("live");
    }
    this.#onMessage(message);
  }

  /** Give up the socket if nothing comes. */
  #expect(withinMs) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#closed({ code: 0, reason: "" }), withinMs);
  }

  #closed({ code, reason }) {
    this.#drop();
    if (code === REJECTED && !this.#isRenewed) {
      this.#isRenewed = true;
      this.#connect(this.#tried, reason);
      return;
    }
    if (code === REJECTED) {
      this.#isWanted = false;
      this.#onState("refused", reason);
      return;
    }
    this.#onState(navigator.onLine ? "lost" : "offline", reason);
    this.#retry = setTimeout(() => this.#connect(), this.#retryMs * (0.75 + Math.random() / 2));
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  #drop() {
    this.#attempt++;
    this.#isConnecting = false;
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }
}
