// The files that are open on the page, kept in the browser so that a reload loses nothing.

const KEY = "rockfill.tabs";
const SAVE_MS = 300;
export const LARGEST_FILE_BYTES = 1_000_000;

const FIRST = {
  name: "main.py",
  text: `def read_text(path):
    with open(path, encoding="utf-8") as file:
        


print(read_text("README.md"))
`,
};

/** The stored tabs as `{ files: [{ name, text, cursor }], active }`; what can't be read is as if nothing was kept. */
export function stored(storage = localStorage) {
  try {
    const { files, active } = JSON.parse(storage.getItem(KEY));
    const kept = files.filter(({ name, text }) => typeof name === "string" && typeof text === "string");
    if (kept.length) return { files: kept, active: kept[active] ? active : 0 };
  } catch {
    // nothing kept yet, or written by something else
  }
  return { files: [{ ...FIRST, cursor: FIRST.text.indexOf("\n\n\n") }], active: 0 };
}

/** Keeps what `current()` gives a moment after the last change. `failed` hears when the browser has no room for it. */
export class Keeper {
  #timer = 0;

  constructor(current, failed) {
    Object.assign(this, { current, failed });
    addEventListener("pagehide", () => this.#timer && this.save());
  }

  changed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.save(), SAVE_MS);
  }

  save() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    try {
      localStorage.setItem(KEY, JSON.stringify(this.current()));
      this.failed(false);
    } catch {
      this.failed(true);
    }
  }
}

/** A name like `wanted` that none of `taken` has. */
export function freeName(wanted, taken) {
  if (!taken.includes(wanted)) return wanted;
  const dot = wanted.lastIndexOf(".");
  const [stem, end] = dot > 0 ? [wanted.slice(0, dot), wanted.slice(dot)] : [wanted, ""];
  let number = 2;
  while (taken.includes(`${stem}-${number}${end}`)) number += 1;
  return `${stem}-${number}${end}`;
}

/** The text of a file that somebody opened; throws an Error that says why it can't be. */
export async function readText(file) {
  if (file.size > LARGEST_FILE_BYTES) throw new Error(`${file.name} is larger than a megabyte, which no model could read.`);
  const text = new TextDecoder().decode(await file.arrayBuffer());
  if (text.includes("\0")) throw new Error(`${file.name} is not text.`);
  return text.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
}

const LANGUAGES = {
  python: "py pyi pyw", javascript: "js mjs cjs jsx", typescript: "ts mts cts tsx", rust: "rs",
  cpp: "c h cc cpp cxx hh hpp hxx ino", java: "java", go: "go", php: "php", html: "html htm vue svelte", css: "css scss less",
  json: "json jsonc", sql: "sql", markdown: "md markdown", yaml: "yaml yml", shell: "sh bash zsh", ruby: "rb", lua: "lua",
  swift: "swift", toml: "toml", dockerfile: "dockerfile", csharp: "cs", kotlin: "kt kts", scala: "scala", dart: "dart",
  perl: "pl pm", r: "r", haskell: "hs", julia: "jl",
};
export const ENDINGS = new Map(Object.entries(LANGUAGES).flatMap(([language, endings]) => endings.split(" ").map((ending) => [ending, language])));

/** The language of a file's name, null if none is known. */
export const languageOf = (name) => ENDINGS.get(name.split(".").pop().toLowerCase()) ?? null;
