// Small pieces of markup that several views use.

import { html, nothing, ref } from "./vendor/lit.js";

/** What went wrong, with the code and what to do, where it happened; nothing for null. */
export function problemNote(problem, actions = nothing) {
  if (!problem) return nothing;
  return html`<div class="problem" role="alert">
    <p><strong>${problem.message}</strong> ${problem.advice} <code>${problem.code}</code></p>
    ${actions === nothing ? nothing : html`<p class="actions">${actions}</p>`}
  </div>`;
}

/** A button that runs `action`, is disabled meanwhile, and hands a failure to `failed`. */
export function actionButton(label, action, { failed, kind = "", disabled = false, title = nothing } = {}) {
  const run = async ({ currentTarget: button }) => {
    button.setAttribute("aria-busy", "true");
    button.disabled = true;
    try {
      await action();
    } catch (problem) {
      if (!failed) throw problem;
      failed(problem);
    } finally {
      button.removeAttribute("aria-busy");
      button.disabled = false;
    }
  };
  return html`<button type="button" class=${kind} ?disabled=${disabled} title=${title} @click=${run}>${label}</button>`;
}

/**
 * Puts `text` on the clipboard; true if that worked. The page is no secure context on a LAN, so that the Clipboard API
 * is not there, and the old way stays the only one that works everywhere.
 */
export function copyText(text) {
  const area = document.createElement("textarea");
  const active = document.activeElement;
  area.value = text;
  area.readOnly = true;
  area.className = "spoken";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  active?.focus({ preventScroll: true });
  return copied;
}

const SAID_MS = 2000;

/** A button that copies what `text()` gives, and says whether it did. */
export function copyButton(text, label = "Copy") {
  const copy = ({ currentTarget: button }) => {
    const said = copyText(text()) ? "Copied" : "Select it and copy by hand";
    button.querySelector("span").textContent = said;
    setTimeout(() => (button.querySelector("span").textContent = label), SAID_MS);
  };
  return html`<button type="button" class="copy" @click=${copy}><span aria-live="polite">${label}</span></button>`;
}

/** A block of text to take along. */
export function snippet(text, label) {
  return html`<div class="snippet">
    <pre tabindex="0" aria-label=${label}><code>${text}</code></pre>
    ${copyButton(() => text)}
  </div>`;
}

/** An answer to "nothing here": what it would be, and what to do next. */
export function emptyNote(what, next = nothing) {
  return html`<p class="empty">${what} ${next}</p>`;
}

/**
 * Shows a dialog and resolves to the value of the button that closed it, "" if it was dismissed. `content(close)`
 * gives its markup; `begun(draw)` is called once it is open, for what comes later.
 */
export function openDialog(render, label, content, begun = () => {}) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", label);
    document.body.append(dialog);
    const close = (value = "") => dialog.close(value);
    const draw = () => dialog.isConnected && render(content(close, draw), dialog);
    draw();
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    dialog.showModal();
    begun(draw);
  });
}

export { html, nothing, ref };
