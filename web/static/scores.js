// What `rockfill eval` found of a model, as people read it. Pure.

import { count } from "./words.js";

const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** A line for each score, with its standard error: "1,033 tasks: 28.1 % ± 1.4 right, 21.5 % ± 1.3 exact · FILE · RUNTIME". */
export function scoreLines(evaluations) {
  return evaluations.flatMap(({ runtime, evaluation: { questions, scores } }) =>
    scores.map((score) => `${inWords(score)} · ${questions} · ${runtime}`));
}

function inWords({ name, count: asked, passed, exact }) {
  const share = (value) => `${tenths.format(100 * value)} % ± ${tenths.format(100 * Math.sqrt((value * (1 - value)) / asked))}`;
  return `${count(asked)} ${name}: ${passed === null ? "" : `${share(passed)} right, `}${share(exact)} exact`;
}
