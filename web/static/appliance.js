// What the page knows of the appliance, kept up to date over the link, for every view.

import { Link } from "./link.js";

const LATE_MS = 4_000; // beyond the time when figures were due
const EVENTS_KEPT = 200;

class Appliance {
  status = { state: "connecting" };
  engine = null; // as engine.get gives it
  stats = null; // the last of the topic stats
  downloads = []; // the jobs of the topic downloads
  scopes = null; // what may be done here; null while that is not known
  events = []; // what happened since the page was opened, newest last
  #link;
  #listeners = new Set();
  #statsMs = -Infinity;
  #intervalS = 1;
  #ageing = 0;

  constructor() {
    const address = () => new URL("ws", document.baseURI).href.replace(/^http/, "ws");
    this.#link = new Link(address, () => this.#linkChanged());
    document.addEventListener("visibilitychange", () => this.#watchFigures());
  }

  /** Whether the figures are of now. */
  get fresh() {
    return this.status.state === "open" && this.#freshMs > 0;
  }

  /** For how long the figures that are there are still of now. */
  get #freshMs() {
    return this.#statsMs + this.#intervalS * 1000 + LATE_MS - performance.now();
  }

  /** Have `listener({topic, event})` called after every change; `topic` says of what. */
  listen(listener) {
    this.#listeners.add(listener);
  }

  connect = () => this.#link.connect();
  refuse = () => this.#link.refuse();
  retryNow = () => this.#link.retryNow();
  call = (type, parameters, options) => this.#link.call(type, parameters, options);
  stream = (type, parameters, event) => this.#link.stream(type, parameters, event);
  forget = (id) => this.#link.forget(id);
  subscribe = (key, parameters, event) => this.#link.subscribe(key, parameters, event);

  #linkChanged() {
    const { status } = this.#link;
    const since = this.status.state === "lost" ? this.status.since : new Date();
    this.status = { ...status, since };
    if (status.state === "refused") Object.assign(this, { engine: null, stats: null, downloads: [], events: [] });
    if (status.state === "open") {
      this.subscribe("state", { topics: ["engine", "downloads", "events"] }, (event) => this.#happened(event));
      this.#watchFigures();
      this.call("access.get").then(({ scopes }) => {
        this.scopes = scopes;
        this.#tell("access");
      }, () => {}); // the connection broke: the next one asks again
    }
    this.#tell("link");
  }

  /** Have figures every `intervalS` seconds. */
  watchFigures(intervalS) {
    if (intervalS === this.#intervalS) return;
    this.#intervalS = intervalS;
    this.#age();
    this.#watchFigures();
  }

  /** They are measured for whoever looks: a hidden page asks for none. */
  #watchFigures() {
    const parameters = document.hidden ? null : { topics: ["stats"], interval_s: this.#intervalS };
    this.subscribe("stats", parameters, (event) => this.#happened(event));
  }

  #happened(event) {
    switch (event.topic) {
      case "engine":
        this.engine = event;
        break;
      case "stats":
        this.stats = event;
        this.#statsMs = performance.now();
        this.#age();
        break;
      case "downloads":
        this.downloads = event.downloads;
        break;
      case "events":
        this.events = [...this.events, { ...event, at: new Date() }].slice(-EVENTS_KEPT);
    }
    this.#tell(event.topic, event);
  }

  /** Tell when the figures have become old. */
  #age() {
    clearTimeout(this.#ageing);
    this.#ageing = setTimeout(() => (this.#freshMs > 0 ? this.#age() : this.#tell("age")), Math.max(0, this.#freshMs));
  }

  #tell(topic, event = null) {
    for (const listener of this.#listeners) listener({ topic, event });
  }
}

export const appliance = new Appliance();
