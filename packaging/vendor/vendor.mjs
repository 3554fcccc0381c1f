// Bundles what the page uses of others into web/static/vendor, with their licences and a record of their versions.
// Run by `make vendor-web`, which has put the pinned packages into the current directory's node_modules.

import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const esbuild = require("esbuild");
const [here, out] = process.argv.slice(2);

// A module for each language that code models know: its name, and what makes CodeMirror read it. Each is loaded when a
// file of that language is opened.
const LANGUAGES = {
  python: `import { python } from "@codemirror/lang-python"; export default () => python();`,
  javascript: `import { javascript } from "@codemirror/lang-javascript"; export default () => javascript({ jsx: true });`,
  typescript: `import { javascript } from "@codemirror/lang-javascript"; export default () => javascript({ jsx: true, typescript: true });`,
  rust: `import { rust } from "@codemirror/lang-rust"; export default () => rust();`,
  cpp: `import { cpp } from "@codemirror/lang-cpp"; export default () => cpp();`,
  java: `import { java } from "@codemirror/lang-java"; export default () => java();`,
  go: `import { go } from "@codemirror/lang-go"; export default () => go();`,
  php: `import { php } from "@codemirror/lang-php"; export default () => php();`,
  html: `import { html } from "@codemirror/lang-html"; export default () => html();`,
  css: `import { css } from "@codemirror/lang-css"; export default () => css();`,
  json: `import { json } from "@codemirror/lang-json"; export default () => json();`,
  sql: `import { sql } from "@codemirror/lang-sql"; export default () => sql();`,
  markdown: `import { markdown } from "@codemirror/lang-markdown"; export default () => markdown();`,
  yaml: `import { yaml } from "@codemirror/lang-yaml"; export default () => yaml();`,
  ...Object.fromEntries(
    Object.entries({
      shell: "shell", ruby: "ruby", lua: "lua", swift: "swift", toml: "toml", dockerfile: "dockerfile:dockerFile",
      csharp: "clike:csharp", kotlin: "clike:kotlin", scala: "clike:scala", dart: "clike:dart", perl: "perl", r: "r",
      haskell: "haskell", julia: "julia",
    }).map(([name, where]) => {
      const [module, mode = module] = where.split(":");
      return [name, `import { StreamLanguage } from "@codemirror/language";
import { ${mode} } from "@codemirror/legacy-modes/mode/${module}"; export default () => StreamLanguage.define(${mode});`];
    }),
  ),
};

const common = { bundle: true, minify: true, format: "esm", target: "es2022", metafile: true, legalComments: "none", outdir: out };

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await mkdir("languages", { recursive: true });
for (const [name, source] of Object.entries(LANGUAGES)) await writeFile(`languages/language-${name}.js`, source);
await mkdir("entries", { recursive: true });
for (const name of await readdir(join(here, "entries"))) await copyFile(join(here, "entries", name), join("entries", name));

const languages = Object.keys(LANGUAGES).map((name) => `languages/language-${name}.js`);
const built = [
  await esbuild.build({ ...common, entryPoints: ["entries/editor.js", ...languages], entryNames: "[name]", splitting: true }),
  await esbuild.build({ ...common, entryPoints: ["entries/lit.js"] }),
  await esbuild.build({ ...common, entryPoints: ["entries/uplot.js"] }),
];
await copyFile("node_modules/uplot/dist/uPlot.min.css", join(out, "uplot.css"));
const FONT = "node_modules/@fontsource/b612";
for (const weight of [400, 700]) await copyFile(`${FONT}/files/b612-latin-${weight}-normal.woff2`, join(out, `b612-${weight}.woff2`));

// Whose code is in there, by what esbuild says it read.
const inputs = built.flatMap(({ metafile }) => Object.values(metafile.outputs))
  .flatMap(({ inputs }) => Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path));
const folders = new Set([...inputs, `${FONT}/package.json`].map((path) => path.match(/.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0]));
folders.delete(undefined);
const packages = [];
const licences = [];
for (const folder of [...folders].sort()) {
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  if (!license || !file) throw new Error(`${name} says nothing of its licence`);
  packages.push({ name, version, license });
  licences.push(`${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`);
}
await writeFile(join(out, "LICENCES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
const files = {};
for (const name of (await readdir(out)).sort()) {
  files[name] = createHash("sha256").update(await readFile(join(out, name))).digest("hex");
}
await writeFile(join(out, "VERSIONS.json"), `${JSON.stringify({ packages, files }, null, 1)}\n`);
