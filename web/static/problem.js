// Something that a person can be told: a stable code, what happened, and what to do.

export class Problem extends Error {
  constructor({ code, message, advice = "", detail = {} }) {
    super(message);
    this.code = code;
    this.advice = advice;
    this.detail = detail;
  }
}

export const UNREACHABLE = {
  code: "unreachable",
  message: "The appliance does not answer.",
  advice: "Check that it is switched on, that the service runs, and that this device is on the same network.",
};
