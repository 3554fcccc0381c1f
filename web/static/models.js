import { html } from "./parts.js";
import { render } from "./vendor/lit.js";
export function open(container, appliance) {
  return { draw: () => render(html`<p>…</p>`, container) };
}
