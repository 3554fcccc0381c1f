// What keeps the appliance from working well, each with the command that mends it.

import { actionButton, html, nothing, problemNote, snippet } from "./parts.js";
import { plural, time } from "./words.js";

const WORST_FIRST = ["problem", "warning", "ok"];
const TIMEOUT_MS = 60_000; // where the Hub does not answer, that is waited for

export function doctorCard(appliance, changed) {
  let findings = null;
  let problem = null;
  let at = null;
  let missing = false;
  let looking = null;

  const look = async () => {
    try {
      ({ findings } = await appliance.call("doctor.run", {}, { timeoutMs: TIMEOUT_MS }));
      at = new Date();
      problem = null;
    } catch (failure) {
      if (failure.code === "unknown_command") missing = true;
      else if (failure.code !== "unreachable") problem = failure;
    }
    looking = null;
    changed();
  };
  const lookOnce = () => (looking ??= look());

  const item = ({ check, level, message, fix }) => html`<li class=${level === "problem" ? "problem-found" : level}>
    <strong>${check.replaceAll("_", " ")}<span class="spoken">, ${level}</span></strong>
    <div><p>${message}</p>${fix ? snippet(fix, `What mends ${check}`) : nothing}</div></li>`;

  const said = () => {
    if (!findings) return looking ? "Looking…" : "";
    const counts = WORST_FIRST.slice(0, 2).map((level) => [level, findings.filter((finding) => finding.level === level).length]);
    const bad = counts.filter(([, number]) => number).map(([level, number]) => plural(number, level));
    return `${bad.length ? bad.join(", ") : "Everything is well"}, as of ${time(at)}`;
  };

  return {
    /** Looks once, and then when somebody asks: part of it is a question to the Hub. */
    load() {
      if (!findings && !missing) lookOnce();
    },
    draw() {
      if (missing) return nothing;
      const wrong = WORST_FIRST.slice(0, 2).flatMap((level) => (findings ?? []).filter((finding) => finding.level === level));
      const well = (findings ?? []).filter(({ level }) => level === "ok");
      return html`<section class="card" aria-label="Doctor">
        <div class="head"><h2>Doctor</h2><p role="status">${said()}</p>${actionButton("Check again", lookOnce, { kind: "small", disabled: Boolean(looking) })}</div>
        ${problemNote(problem)}
        ${wrong.length ? html`<ul class="findings">${wrong.map(item)}</ul>` : nothing}
        ${well.length ? html`<details><summary>${plural(well.length, "check")} found nothing wrong</summary><ul class="findings">${well.map(item)}</ul></details>` : nothing}
      </section>`;
    },
  };
}
