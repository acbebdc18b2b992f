// Loads the graphs and dreams, away from the page. Messages as in worker-engine.js: open, start, step.

import { Dreamer } from "./dreamer.js";
import { load } from "./files.js";

// (module (func (result v128) i32.const 0 i8x16.splat))
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11);

let site, dreamer;

async function open(message) {
  site = message.site;
  if (typeof WebAssembly === "undefined") throw new Error("This browser has no WebAssembly, or it is switched off: the dream cannot be computed here.");
  if (!WebAssembly.validate(SIMD)) throw new Error("This browser is too old to compute the dream: it knows no WebAssembly SIMD. Those of 2023 and later do.");
  const names = Object.keys(site.files);
  const total = names.reduce((sum, name) => sum + site.files[name].size, 0);
  let loaded = 0;
  const onBytes = (bytes) => postMessage({ type: "progress", loaded: Math.min((loaded += bytes), total), total });
  const data = await Promise.all(names.map((name) => load(site, name, onBytes)));
  const files = Object.fromEntries(names.map((name, at) => [name, data[at]]));
  const ort = await import("./ort.js");
  Object.assign(ort.env.wasm, { wasmBinary: files["ort.wasm"].buffer, numThreads: 1, proxy: false });
  const sessions = {};
  for (const graph of ["step", "decoder"]) {
    sessions[graph] = await ort.InferenceSession.create(files[`${graph}.onnx`], { executionProviders: ["wasm"] });
  }
  dreamer = new Dreamer(ort, site.model, sessions);
  postMessage({ type: "ready" });
}

async function start({ dream, start, seed }) {
  const { codes, context_actions: actions } = site.starts[start];
  const frame = await dreamer.start(codes, actions, seed);
  postMessage({ type: "started", dream, frames: frame.buffer, count: 1 }, [frame.buffer]);
}

async function step({ dream, step, actions, sampling }) {
  const before = performance.now();
  const { frames, codes, ...figures } = await dreamer.step(actions, sampling);
  const own = frames.slice().buffer;
  const ms = performance.now() - before;
  postMessage({ type: "step", dream, step, frames: own, count: site.stride, codes: [...codes], ms, ...figures }, [own]);
}

const acts = { open, start, step };
let before = Promise.resolve(); // One thing after the other: a dream has one state.
onmessage = ({ data }) => {
  before = before.then(() => acts[data.type](data)).catch((error) => {
    console.error(error);
    postMessage({ type: "error", message: error.message, fatal: true });
  });
};
