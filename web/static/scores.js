// What `rockfill eval` found of a model, as people read it. Pure.

import { count } from "./words.js";

const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** A line for each result: "Measured with RUNTIME on FILE: 28.1 % ± 1.4 of 1,033 tasks right, 21.5 % ± 1.3 exact". */
export function scoreLines(evaluations) {
  return evaluations.map(({ runtime, evaluation: { questions, scores } }) =>
    `Measured with ${runtime} on ${questions}: ${scores.map(inWords).join("; ")}`);
}

function inWords({ name, count: asked, passed, exact }) {
  const share = (value) => `${tenths.format(100 * value)} % ± ${tenths.format(100 * Math.sqrt((value * (1 - value)) / asked))}`;
  const of = `of ${count(asked)} ${name}`;
  return passed === null ? `${share(exact)} ${of} exact` : `${share(passed)} ${of} right, ${share(exact)} exact`;
}
