// Having a model fetched, with the questions that come before it: a licence to accept, a token that the Hub asks for.

import { html, nothing, openDialog, problemNote } from "./parts.js";
import { render } from "./vendor/lit.js";

const ASK_TIMEOUT_MS = 120_000; // the Hub may be slow

/**
 * Runs `models.use` or `models.pull` (`type`) with `wish`, asking what has to be asked; gives its result, or null where
 * somebody answered no. Throws the `Problem` that is left.
 */
export async function fetchModel(appliance, type, wish) {
  for (let parameters = wish; ;) {
    try {
      return await appliance.call(type, parameters, { timeoutMs: ASK_TIMEOUT_MS });
    } catch (problem) {
      if (problem.code === "licence_not_accepted" && !parameters.accept_licence) {
        if (!(await licenceAccepted(problem))) return null;
        parameters = { ...parameters, accept_licence: true };
      } else if (problem.code === "hub_gated") {
        if (!(await hubLogin(appliance, problem))) return null;
      } else throw problem;
    }
  }
}

async function licenceAccepted({ detail }) {
  const answer = await openDialog(render, "Licence", (close) => html`
    <h2>${detail.name}</h2>
    <p>${detail.repository} comes under this licence, which has to be accepted before it is fetched. That you did is kept on
      this appliance; it applies to whoever uses the model.</p>
    <p><a href=${webAddress(detail.url)} target="_blank" rel="noopener noreferrer">Read the licence</a>
      <span class="quiet">${detail.url}</span></p>
    <p class="actions"><button type="button" class="primary" @click=${() => close("accept")}>I have read it and accept</button>
      <button type="button" autofocus @click=${() => close()}>Not now</button></p>`);
  return answer === "accept";
}

/** Asks for a token of the Hub and stores it; true if there is one now. `problem` says what it is needed for. */
export async function hubLogin(appliance, problem = null) {
  let wrong = problem;
  let account = null;
  const answer = await openDialog(render, "Sign in to the Hub", (close, draw) => {
    const submit = async (event) => {
      event.preventDefault();
      const token = event.target.elements.token.value.trim();
      try {
        ({ account } = await appliance.call("hub.login", { token }, { timeoutMs: ASK_TIMEOUT_MS }));
        close("done");
      } catch (failure) {
        wrong = failure;
        draw();
      }
    };
    return html`<h2>A token of the Hub</h2>
      ${problemNote(wrong)}
      <p>Some models are given only to people who have an account on the Hub and accepted the model’s terms there. An access token
        with the right to read is enough. It stays on this appliance, where only the service can read it.</p>
      <form @submit=${submit}>
        <label>Access token <input name="token" type="password" autocomplete="off" autocapitalize="none" spellcheck="false" required autofocus></label>
        <p class="actions"><button class="primary">Sign in</button><button type="button" @click=${() => close()}>Not now</button></p>
      </form>`;
  });
  return answer === "done" ? (account ?? true) : null;
}

/** An address that may stand in a link; anything but the web's is none. */
export function webAddress(address) {
  return /^https?:\/\//.test(address ?? "") ? address : nothing;
}
