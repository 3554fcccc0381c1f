// Settings and connecting: where this appliance is, what editors and automations need to be told, tokens, and about.

import { automationSettings, editorSettings } from "./editors.js";
import { html, nothing, snippet } from "./parts.js";
import { tokensCard } from "./tokens.js";
import { render } from "./vendor/lit.js";
import { plural } from "./words.js";

export function open(container, appliance) {
  return new ConnectView(container, appliance);
}

class ConnectView {
  #chosen = { editors: 0, automations: 0 };
  #versions = null;

  constructor(container, appliance) {
    Object.assign(this, { container, appliance });
    this.tokens = tokensCard(appliance, () => this.draw());
  }

  async load() {
    this.tokens.load();
    if (this.#versions) return;
    const answer = await fetch(new URL("vendor/VERSIONS.json", import.meta.url)).catch(() => null);
    if (answer?.ok) this.#versions = (await answer.json()).packages;
    this.draw();
  }

  draw() {
    const base = new URL(document.baseURI);
    const where = {
      origin: `${base.origin}${base.pathname}`,
      protocol: base.protocol.slice(0, -1),
      host: base.hostname,
      port: base.port || (base.protocol === "https:" ? "443" : "80"),
      path: base.pathname,
      model: this.appliance.engine?.model?.name ?? "MODEL",
    };
    render(html`
      <div class="head"><h1>Connect</h1></div>
      <section class="card" aria-label="Address">
        <h2>This appliance</h2>
        <p>Rockfill answers at <code class="address">${where.origin}</code> to whoever has a token. In what follows, put one in place of
          <code>TOKEN</code>: <code>rockfill token</code> prints the primary one.</p>
      </section>
      ${this.#chooser("editors", "Editors", editorSettings(where))}
      ${this.#chooser("automations", "Automations and scripts", automationSettings(where))}
      ${this.tokens.draw()}
      ${this.#about()}`, this.container);
  }

  #chooser(key, title, entries) {
    const at = this.#chosen[key];
    const choose = (number) => {
      this.#chosen[key] = number;
      this.draw();
    };
    const move = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      choose((at + step + entries.length) % entries.length);
      requestAnimationFrame(() => this.container.querySelector(`#${key}-tab-${this.#chosen[key]}`).focus());
    };
    return html`<section class="card" aria-label=${title}>
      <h2>${title}</h2>
      <div class="chips" role="tablist" aria-label=${title} @keydown=${move}>${entries.map(({ name }, number) => html`<button type="button" role="tab"
        id=${`${key}-tab-${number}`} aria-controls=${`${key}-panel`} aria-selected=${number === at} tabindex=${number === at ? 0 : -1} @click=${() => choose(number)}>${name}</button>`)}</div>
      <div role="tabpanel" id=${`${key}-panel`} aria-labelledby=${`${key}-tab-${at}`} class="panel">
        <p class="quiet">${entries[at].where}</p>
        ${snippet(entries[at].text, entries[at].name)}
      </div>
    </section>`;
  }

  #about() {
    const { version } = document.body.dataset;
    return html`<section class="card" aria-label="About">
      <h2>About</h2>
      <dl class="facts">
        <div><dt>Rockfill</dt><dd>${version}, Apache-2.0</dd></div>
        <div><dt>Runtime</dt><dd>${this.appliance.engine?.runtime ?? "none is loaded"}</dd></div>
      </dl>
      ${this.#versions
        ? html`<details><summary>What this page is made with: ${plural(this.#versions.length, "package")}</summary>
            <ul class="versions">${this.#versions.map(({ name, version: at, license }) => html`<li>${name} ${at}, ${license}</li>`)}</ul>
            <p><a href=${new URL("vendor/LICENCES.txt", import.meta.url).href}>Their licences in full</a></p></details>`
        : nothing}
    </section>`;
  }
}
