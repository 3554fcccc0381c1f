// Models: what is here, and which of them is used.

import { actionButton, emptyNote, html, problemNote } from "./parts.js";
import { render } from "./vendor/lit.js";

export function open(container, appliance) {
  let models = [];
  let wrong = null;
  const failed = (problem) => {
    wrong = problem;
    draw();
  };
  const load = async () => {
    try {
      ({ models } = await appliance.call("models.list"));
      wrong = null;
    } catch (problem) {
      if (problem.code !== "unreachable") wrong = problem;
    }
    draw();
  };
  const use = async (name) => {
    await appliance.call("engine.load", { model: name }, { timeoutMs: 600_000 });
    await load();
  };
  const draw = () => render(html`
    <div class="head"><h1>Models</h1></div>
    ${problemNote(wrong)}
    <section class="card" aria-label="On this machine"><h2>On this machine</h2>
      ${models.length
        ? html`<ul class="rows">${models.map((model) => html`<li><strong>${model.name}</strong> <span class="quiet">${model.engine}</span>
            ${model.chosen ? html`<span>in use</span>` : actionButton("Use", () => use(model.name), { failed, kind: "small" })}</li>`)}</ul>`
        : emptyNote("There is no model here.")}
    </section>`, container);
  return { draw, enter: load };
}
