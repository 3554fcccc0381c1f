// The history of the board's figures, as columns that grow with every sample. Pure.

// Figures come every second, or every minute where nobody looks. Where there was nothing for longer, there is a gap.
const LONGEST_STEP_S = 150;

/** Each number of a sample under a name of its own, as the history has them: "npu.load_percent.0". */
export function flat(figures) {
  return Object.fromEntries(Object.entries(figures).flatMap(([key, value]) =>
    value !== null && typeof value === "object"
      ? Object.entries(value).map(([place, inner]) => [`${key}.${place}`, inner])
      : [[key, value]],
  ));
}

/** Figures over time, oldest first, of `longestS` seconds. */
export class Columns {
  times = [];
  #columns = new Map();

  constructor(longestS) {
    this.longestS = longestS;
  }

  /** Forget everything and take `columns`, as `stats.history` gives them. */
  replace({ time_s: times, ...columns }) {
    this.times = [];
    this.#columns = new Map(Object.keys(columns).map((name) => [name, []]));
    for (const [at, time] of times.entries()) {
      this.#append(time, (name) => columns[name]?.[at] ?? null);
    }
  }

  /** One sample more; one that is not newer than the last is known already. */
  add(timeS, figures) {
    if (this.times.length && timeS <= this.times.at(-1) + 0.05) return;
    const sample = flat(figures);
    for (const name of Object.keys(sample)) {
      if (sample[name] !== null && !this.#columns.has(name)) this.#columns.set(name, this.times.map(() => null));
    }
    this.#append(timeS, (name) => sample[name] ?? null);
    const old = this.times.findIndex((time) => time >= timeS - this.longestS);
    if (old < 60) return; // not every time: it copies everything
    this.times.splice(0, old);
    for (const values of this.#columns.values()) values.splice(0, old);
  }

  /** The numbers called `name`, one for each of `times`, null where there was none. */
  values(name) {
    return this.#columns.get(name) ?? this.times.map(() => null);
  }

  /** What comes after "`key`." in the names: the parts of a figure that has several. */
  parts(key) {
    return [...this.#columns.keys()].filter((name) => name.startsWith(`${key}.`)).map((name) => name.slice(key.length + 1));
  }

  #append(time, valueOf) {
    const last = this.times.at(-1);
    if (last !== undefined && time - last > LONGEST_STEP_S) {
      this.times.push(last + 1);
      for (const values of this.#columns.values()) values.push(null);
    }
    this.times.push(time);
    for (const [name, values] of this.#columns) values.push(valueOf(name));
  }
}
