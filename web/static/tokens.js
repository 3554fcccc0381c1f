// Tokens for others: each with a name and with what it is good for; shown once, when it is made.

import { newest } from "./newest.js";
import { actionButton, emptyNote, html, nothing, openDialog, problemNote, snippet } from "./parts.js";
import { render, repeat } from "./vendor/lit.js";
import { moment } from "./words.js";

const SCOPES = {
  read: "see what runs, figures and events",
  complete: "have code completed",
  control: "load models, fetch them, pause, set clocks",
  admin: "make tokens, change what is installed",
};
const FOR_EDITORS = ["read", "complete"];

export function tokensCard(appliance, changed) {
  let tokens = null;
  let made = null;
  let unread = null; // what came of reading the list
  let problem = null; // what came of making one or taking one back

  const asking = newest();
  const load = async () => {
    const isNewest = asking();
    try {
      const answer = await appliance.call("tokens.list");
      if (!isNewest()) return;
      ({ tokens } = answer);
      unread = null;
    } catch (failure) {
      if (isNewest() && failure.code !== "unreachable") unread = failure;
    }
    changed();
  };
  const failed = (failure) => {
    problem = failure;
    changed();
  };

  const add = async (event) => {
    event.preventDefault();
    const { elements } = event.target;
    const scopes = Object.keys(SCOPES).filter((scope) => elements[`scope-${scope}`].checked);
    try {
      problem = null;
      made = await appliance.call("tokens.add", { name: elements.name.value.trim(), scopes });
      event.target.reset();
      await load();
    } catch (failure) {
      failed(failure);
    }
  };

  const revoke = async (name) => {
    const answer = await openDialog(render, `Revoke ${name}`, (close) => html`
      <h2>Revoke ${name}?</h2>
      <p>Whatever uses it is locked out at once.</p>
      <p class="actions"><button type="button" class="accent" @click=${() => close("revoke")}>Revoke it</button>
        <button type="button" autofocus @click=${() => close()}>Keep it</button></p>`);
    if (answer !== "revoke") return;
    problem = null;
    await appliance.call("tokens.revoke", { name });
    if (made?.name === name) made = null;
    await load();
  };

  return {
    load,
    draw() {
      if (!tokens) return unread ? html`<section class="card" aria-label="Tokens"><h2>Tokens</h2>${problemNote(unread)}</section>` : nothing;
      return html`<section class="card" aria-label="Tokens">
        <h2>Tokens</h2>
        <p class="quiet">One for each editor or automation, good for no more than it needs, can be taken back without touching the others.</p>
        ${made ? html`<div class="notice" role="status"><p><strong>${made.name}</strong> is made. Copy its token now: it is not shown again.</p>${snippet(made.token, `Token ${made.name}`)}</div>` : nothing}
        ${tokens.length
          ? html`<ul class="rows">${repeat(tokens, ({ name }) => name, ({ name, scopes, created_s: created }) => html`<li>
              <div class="what"><strong>${name}</strong><p class="quiet">${scopes.join(", ")} · made ${moment(created)}</p></div>
              <div class="actions">${actionButton("Revoke…", () => revoke(name), { failed, kind: "small" })}</div></li>`)}</ul>`
          : emptyNote("There is only the primary token.", "Make one for your editor here.")}
        <form class="make" @submit=${add}>
          <label>Name <input name="name" required maxlength="64" pattern="[A-Za-z0-9._\\-]+" title="Letters, digits, dots, dashes and underscores" autocapitalize="none" spellcheck="false" placeholder="laptop"></label>
          <fieldset><legend>Good to</legend>${Object.entries(SCOPES).map(([scope, what]) => html`<label class="check"><input type="checkbox" name=${`scope-${scope}`} ?checked=${FOR_EDITORS.includes(scope)}> <span><strong>${scope}</strong> <span class="quiet">${what}</span></span></label>`)}</fieldset>
          <button>Make a token</button>
        </form>
        ${problemNote(problem)}
        ${problemNote(unread)}
      </section>`;
    },
  };
}
