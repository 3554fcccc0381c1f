// What the first steps are, from what is known. Pure.

const FOR_NPU = "codegemma:2b"; // made for completing while typing, and runs with 8 GB
const FOR_CPU = "qwen2.5-coder:0.5b"; // small enough for almost any machine

/**
 * The guide as `{ title, instead, steps: [{ name, text, state: "done" | "now" | "later", suggestion, job }] }`. `board`,
 * `runtimes` and `catalogue` are what the commands of these names gave, undefined while that is not known.
 */
export function guide({ engine, downloads, board, runtimes, catalogue }) {
  const npu = board?.npu?.driver === "rknpu";
  const real = engine.model && !engine.model.demonstration && !engine.instead_of;
  const job = downloads.find(({ kind, state }) => kind === "model" && state !== "done" && state !== "cancelled");
  const steps = [];
  if (npu) steps.push(runtimeStep(runtimes));
  steps.push(modelStep({ real, job, engine, suggestion: catalogue.find(({ name }) => name === (npu ? FOR_NPU : FOR_CPU)), known: board !== undefined }));
  steps.push({
    name: "The first completion",
    text: real ? "Put the cursor where something is missing, and press Ctrl-Space, or Complete." : "As soon as the model is there.",
    state: real ? "now" : "later",
  });
  // One thing at a time: what comes after the first that is to be done is for later.
  let next = false;
  for (const step of steps) {
    if (next && step.state === "now" && !step.job) step.state = "later";
    next ||= step.state === "now" && !step.optional;
  }
  return { title: real ? "A real model runs." : "Everything works. Now for a real model.", instead: insteadOf({ engine, board, npu }), steps };
}

function runtimeStep(runtimes) {
  const here = runtimes?.runtimes.find(({ problem }) => !problem);
  return {
    name: "Rockchip’s runtime for the NPU",
    text: here ? `Version ${here.version ?? "unknown"} is here.` : "It is fetched with the model, from Rockchip, in the version that suits it.",
    state: here ? "done" : "now",
    optional: true,
  };
}

function modelStep({ real, job, engine, suggestion, known }) {
  const name = "A model";
  if (real) return { name, text: `${engine.model.name} is here.`, state: "done" };
  if (job) return { name, text: `${job.name} is on its way. It is loaded by itself once it is here.`, state: "now", job };
  const text = suggestion?.note ?? "Choose one that suits this machine.";
  return { name, text, state: "now", suggestion: known ? suggestion : undefined };
}

/** What runs instead of a model on the NPU, and why. */
function insteadOf({ engine, board, npu }) {
  const running = engine.model ? `${engine.model.name}${engine.model.demonstration ? ", a small demonstration that is not a good programmer," : ""} runs on the ${engine.model.engine === "rkllm" ? "NPU" : "CPU"}` : "No model runs";
  if (engine.instead_of) return `${engine.instead_of.model.name} was chosen, and can’t run as things are. Meanwhile ${running}.`;
  if (engine.model && !engine.model.demonstration) return "";
  if (!board) return `${running}.`;
  if (npu) return `${running} until you choose one for the NPU.`;
  return `${running}, since ${whyNoNpu(board.npu)}`;
}

function whyNoNpu(npu) {
  if (npu?.driver === "rocket") return "this kernel drives the NPU by “rocket”, which Rockchip’s runtime can’t use. It takes a vendor kernel with the rknpu driver.";
  if (npu?.in_device_tree) return "this kernel has no driver for the NPU. It takes a vendor kernel with the rknpu driver.";
  return "this machine has no NPU that Rockfill knows. All else is as on a board.";
}
