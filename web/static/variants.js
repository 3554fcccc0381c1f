// The variants of one repository, and what decides between them on this machine.

import { fetchModel, webAddress } from "./fetching.js";
import { actionButton, html, nothing, openDialog, problemNote } from "./parts.js";
import { scoreLines } from "./scores.js";
import { ref, render, repeat } from "./vendor/lit.js";
import { bytes, NONE, short } from "./words.js";

const HUB_TIMEOUT_MS = 60_000;

/** `fetched()` is called once a download was begun. */
export function variantsCard(appliance, changed, fetched) {
  let wanted = null;
  let offering = null;
  let problem = null;
  let card = null;
  const rowProblems = new Map();

  const look = async (repository) => {
    wanted = repository;
    offering = problem = null;
    rowProblems.clear();
    changed();
    card?.scrollIntoView({ block: "start" });
    try {
      const found = await appliance.call("models.variants", { repository }, { timeoutMs: HUB_TIMEOUT_MS });
      if (wanted === repository) offering = found;
    } catch (failure) {
      if (wanted === repository) problem = failure;
    }
    changed();
    card?.focus({ preventScroll: true });
  };

  const get = (variant, type, force = false) => async () => {
    rowProblems.delete(variant.file);
    if (force && !(await forceConfirmed(variant))) return;
    const done = await fetchModel(appliance, type, { model: wanted, variant: variant.file, force });
    if (!done) return;
    changed();
    fetched();
  };

  const row = (variant) => {
    const failed = (failure) => {
      rowProblems.set(variant.file, failure);
      changed();
    };
    const refusals = variant.problems.filter(({ severity }) => severity === "refuse");
    const warnings = variant.problems.filter(({ severity }) => severity !== "refuse");
    const name = variant.quantisation ?? "unknown";
    const details = [variant.optimisation !== null ? `optimisation ${variant.optimisation}` : null, variant.hybrid_ratio !== null ? `hybrid ${variant.hybrid_ratio}` : null, variant.platform, variant.converter_version ? `converter ${variant.converter_version}` : null];
    return html`<tr class=${variant.fits ? "" : "refused"}>
      <th scope="row"><strong>${name}</strong> ${variant.recommended ? html`<span class="tag on">recommended</span>` : nothing}
        <span class="quiet details">${details.filter(Boolean).join(" · ")}</span><span class="quiet file">${variant.file}</span></th>
      <td data-name="Size">${bytes(variant.size_bytes)}</td>
      <td data-name="Fits">${variant.fits ? html`<span class="good">yes</span>` : html`<span class="bad">no</span>`}</td>
      <td data-name="Speed" title=${variant.speed_source ?? nothing}>${variant.expected_tokens_per_second === null ? NONE : html`${short(variant.expected_tokens_per_second)} <small>tok/s${variant.measured ? ", measured here" : ""}</small>`}</td>
      <td class="why" data-name="Why">
        ${variant.recommended ? html`<p>${variant.reason}</p>` : nothing}
        ${refusals.map((finding) => html`<p class="bad">${finding.message} ${finding.advice} <code>${finding.code}</code></p>`)}
        ${warnings.map((finding) => html`<p class="warn">${finding.message} ${finding.advice}</p>`)}
        ${variant.runtime ? html`<p class="quiet">Runtime ${variant.runtime.version}${variant.runtime.installed ? "" : ", fetched with it"}: ${variant.runtime.reason}</p>` : nothing}
        ${scoreLines(variant.evaluations).map((line) => html`<p class="quiet">${line}</p>`)}
        ${problemNote(rowProblems.get(variant.file))}
      </td>
      <td class="do">
        ${variant.fits
          ? html`${actionButton("Use", get(variant, "models.use"), { failed, kind: variant.recommended ? "small accent" : "small", title: "Fetches it, and loads it once it is here" })}
              ${actionButton("Fetch", get(variant, "models.pull"), { failed, kind: "small plain", title: "Fetches it only" })}`
          : actionButton("All the same…", get(variant, "models.pull", true), { failed, kind: "small plain" })}
      </td>
    </tr>`;
  };

  return {
    look,
    draw() {
      if (wanted === null) return nothing;
      const licence = offering?.licence;
      return html`<section class="card" aria-label="Variants" tabindex="-1" ${ref((element) => (card = element))}>
        <div class="head"><h2>${offering?.repository ?? wanted}</h2>
          ${licence ? html`<p class="quiet">Licence: <a href=${webAddress(licence.url)} target="_blank" rel="noopener noreferrer">${licence.name}</a>${licence.accepted && licence.to_be_accepted ? ", accepted" : ""}${offering.gated ? " · the Hub asks for a token" : ""}</p>` : nothing}</div>
        ${problemNote(problem)}
        ${!offering && !problem ? html`<p class="quiet" role="status">Asking the Hub…</p>` : nothing}
        ${offering
          ? html`<table class="variants"><thead><tr><th scope="col">Variant</th><th scope="col">Size</th><th scope="col">Fits</th><th scope="col">Speed</th><th scope="col">Why</th><th scope="col"><span class="spoken">What to do</span></th></tr></thead>
              <tbody>${repeat(sorted(offering.variants), ({ file }) => file, row)}</tbody></table>`
          : nothing}
      </section>`;
    },
  };
}

/** Recommended first, then what fits, in the order that the appliance gave. */
function sorted(variants) {
  const place = ({ recommended, fits }) => (recommended ? 0 : fits ? 1 : 2);
  return variants.toSorted((one, other) => place(one) - place(other));
}

async function forceConfirmed({ file, problems }) {
  const answer = await openDialog(render, "Fetch all the same", (close) => html`
    <h2>Fetch it all the same?</h2>
    <p>${file} can’t run here, as far as is known: ${problems.filter(({ severity }) => severity === "refuse").map(({ message }) => message).join(" ")}
      Most likely it will not load, or stop the machine.</p>
    <p class="actions"><button type="button" class="accent" @click=${() => close("force")}>Fetch it</button>
      <button type="button" autofocus @click=${() => close()}>Leave it</button></p>`);
  return answer === "force";
}
