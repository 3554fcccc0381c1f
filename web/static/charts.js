// Live charts: a window of the figures' history, drawn by uPlot, with the values of now (or under the pointer) beside.

import { html } from "./parts.js";
import { render } from "./vendor/lit.js";
import uPlot from "./vendor/uplot.js";

const HEIGHT_PX = 168;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * One chart in `container`. `series` is a list of `{ label, values(figures) }`; those that never have a value are left
 * out. `format` writes a value; `range` fixes the scale, else it starts at zero; `steps` are what may lie
 * between two lines of the grid.
 */
export class Chart {
  #plot = null;
  #drawn = "";
  #at = null;

  constructor(container, { title, format, range = null, steps = null, empty }) {
    Object.assign(this, { container, title, format, range, steps, empty });
    new ResizeObserver(() => this.#resize()).observe(container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#drawn = "";
      if (this.shown) this.draw(...this.shown);
    });
  }

  /** Show `series` (`{ label, values }`, a value for each of `times`), the time axis from `from` to `to`. */
  draw(times, series, from, to) {
    this.shown = [times, series, from, to];
    this.window = [from, to];
    const some = series.filter(({ values }) => values.some((value) => value !== null));
    this.#legend(some);
    const names = some.map(({ label }) => label).join("\0");
    if (!some.length) return this.#drop();
    if (!this.#plot || names !== this.#drawn) {
      this.#drop();
      this.#drawn = names;
      this.#plot = new uPlot(this.#options(some), [[], ...some.map(() => [])], this.container.querySelector(".plot"));
    }
    this.#plot.setData([times, ...some.map(({ values }) => values)]);
  }

  #legend(some) {
    const at = this.#at ?? this.shown[0].length - 1;
    render(html`
      <figcaption>${this.title}</figcaption>
      <div class="plot" aria-hidden="true"></div>
      ${some.length
        ? html`<dl class="legend">${some.map(({ label, values }, number) => html`<div><dt><i class=${`series-${(number % 6) + 1}`}></i>${label}</dt><dd>${this.format(values[at] ?? null)}</dd></div>`)}</dl>`
        : html`<p class="quiet">${this.empty}</p>`}`, this.container);
  }

  #options(series) {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--wire"), width: 1 }, ticks: { show: false }, font: "12px B612, sans-serif" };
    const scale = this.range ? { range: this.range } : { range: (_, low, high) => [0, Math.max(high || 0, this.steps?.[0] ?? 1e-9) * 1.1] };
    return {
      width: this.#width,
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { range: () => this.window }, y: scale },
      axes: [
        { ...axis, size: 30, space: 70, values: [[3600, "{HH}:{mm}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
        { ...axis, size: 64, space: 36, ...(this.steps ? { incrs: this.steps } : {}), values: (_, ticks) => ticks.map((tick) => this.format(tick)) },
      ],
      series: [
        {},
        ...series.map((_, number) => ({ stroke: colour(`--series-${(number % 6) + 1}`), width: 1.75, points: { show: false }, spanGaps: false })),
      ],
      hooks: {
        setCursor: [({ cursor: { idx } }) => {
          if (idx === this.#at) return;
          this.#at = idx;
          this.#legend(this.shown[1].filter(({ values }) => values.some((value) => value !== null)));
        }],
      },
    };
  }

  get #width() {
    return Math.max(200, this.container.clientWidth - 2 * 16);
  }

  #resize() {
    this.#plot?.setSize({ width: this.#width, height: HEIGHT_PX });
  }

  #drop() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#drawn = "";
  }
}
