// What is being fetched: how far it is, how fast it goes, and what can be done about it.

import { fetchModel } from "./fetching.js";
import { actionButton, html, nothing, problemNote } from "./parts.js";
import { ref, repeat } from "./vendor/lit.js";
import { bytes, duration } from "./words.js";

const WORDS = { queued: "Waiting its turn", fetching: "Fetching", failed: "Stopped", cancelled: "Cancelled; what has come is kept" };

export function downloadsCard(appliance, changed) {
  const problems = new Map();
  let card = null;

  const job = (download) => {
    const { id, kind, name, state, done_bytes: done, total_bytes: total } = download;
    const failed = (problem) => {
      problems.set(id, problem);
      changed();
    };
    const action = (label, type, parameters = {}) => actionButton(label, async () => {
      problems.delete(id);
      await appliance.call(type, { download: id, ...parameters });
    }, { failed, kind: "small" });
    const again = () => kind === "runtime"
      ? appliance.call("runtimes.install", { version: name })
      : fetchModel(appliance, "models.pull", { model: download.repository, variant: download.file });
    const going = state === "queued" || state === "fetching";
    const share = total ? done / total : null;
    const figures = [
      total ? `${bytes(done)} of ${bytes(total)}` : bytes(done),
      state === "fetching" && download.bytes_per_second ? `${bytes(download.bytes_per_second)}/s` : null,
      state === "fetching" && download.seconds_left !== null ? `${duration(download.seconds_left)} left` : null,
      download.retry_in_s !== null ? `next try in ${duration(download.retry_in_s)}` : null,
    ];
    return html`<li>
      <div class="what">
        <strong>${name}</strong> <span class="quiet">${WORDS[state] ?? state}</span>
        <progress max="1" .value=${share ?? 0} aria-label=${`${name}: how much of it is here`}></progress>
        <p class="quiet">${figures.filter(Boolean).join(" · ")}</p>
      </div>
      <div class="actions">
        ${going
          ? action("Cancel", "models.cancel")
          : html`${actionButton("Go on", () => again(), { failed, kind: "small" })} ${action("Throw away", "models.cancel", { discard: true })}`}
      </div>
      ${problemNote(download.problem ?? problems.get(id))}
    </li>`;
  };

  return {
    show: () => card?.scrollIntoView({ block: "nearest" }),
    draw() {
      const present = appliance.downloads.filter(({ state }) => state !== "done");
      if (!present.length) return nothing;
      return html`<section class="card" aria-label="Downloads" ${ref((element) => (card = element))}>
        <h2>On its way</h2>
        <ul class="rows">${repeat(present, ({ id }) => id, job)}</ul>
      </section>`;
    },
  };
}
