// One dream at a time, by the two graphs of an exported world: what `vqvideo.export.OnnxWorld` does, in JavaScript.

import { noise } from "./noise.js";

const ARRAYS = { int32: Int32Array, float32: Float32Array, bool: Uint8Array };

export class Dreamer {
  /** @param ort onnxruntime-web
   *  @param model "info" of the manifest of the exported world
   *  @param sessions {step, decoder} */
  constructor(ort, model, sessions) {
    Object.assign(this, { ort, model, sessions });
    this.acts = model.graphs.step.inputs.includes("actions");
  }

  /** Reads a context: codes (1 + c, gh, gw) and the flat actions (c, s, a) between its steps, both as plain arrays. Its
   * newest frame (h, w, 3) as the tokenizer shows it. */
  async start(codes, actions, seed) {
    Object.assign(this, { seed, steps: 0, prior: this._fresh("step", 1), decoder: this._fresh("decoder", 1) });
    let frames;
    for (const grid of codes) frames = await this._decode(this._codes(grid));
    for (const [at, acting] of actions.entries()) await this._advance(this._codes(codes[at]), acting, {});
    this.codes = this._codes(codes.at(-1));
    return frames.slice(-frames.length / this.model.stride);
  }

  /** One latent step under flat actions (s, a): {frames: (s, h, w, 3) uint8, codes, reward, termination, entropy}. */
  async step(actions, sampling) {
    const out = await this._advance(this.codes, actions, sampling);
    this.steps += 1;
    this.codes = this._first(out["next.codes"]);
    const [reward, termination, entropy] = ["reward", "termination", "entropy"].map((name) => out[name].data[0]);
    return { frames: await this._decode(this.codes), codes: this.codes.data, reward, termination, entropy };
  }

  async _decode(codes) {
    const { frames, ...state } = await this.sessions.decoder.run({ codes, ...this.decoder });
    this.decoder = withoutNext(state);
    return frames.data;
  }

  /** One pass of the prior, whose state goes on. */
  async _advance(codes, actions, { temperature = 1, top_p = 1, guidance = 1 }) {
    const guided = this.acts && this.model.can_guide && guidance !== 0 && guidance !== 1;
    const rows = guided ? 2 : 1;
    const twice = (tensor) => (guided ? this._twice(tensor) : tensor);
    const drawn = noise(this.seed, this.steps, this.model.noise);
    const feeds = {
      codes: twice(codes),
      noise: twice(this._tensor("int32", drawn, [1, drawn.length])),
      temperature: this._tensor("float32", [temperature], []),
      top_p: this._tensor("float32", [top_p], []),
      guidance: this._tensor("float32", [guided ? guidance : 1], []),
      told: this._tensor("int32", Array(rows).fill(0), [rows]),
      untold: this._tensor("int32", Array(rows).fill(rows - 1), [rows]),
    };
    if (this.acts) {
      const known = guided ? [1, 0] : [Number(guidance !== 0 || !this.model.can_guide)];
      feeds.known = this._tensor("bool", known, [rows]);
      feeds.actions = twice(this._tensor("float32", actions.flat(), [1, actions.length, actions[0].length]));
    }
    for (const [name, tensor] of Object.entries(this.prior)) feeds[name] = twice(tensor);
    const { step } = this.model.graphs;
    const out = await this.sessions.step.run(feeds, step.outputs.filter((name) => name !== "logits"));
    const state = Object.keys(step.state).map((name) => [name, guided ? this._first(out[`next.${name}`]) : out[`next.${name}`]]);
    this.prior = Object.fromEntries(state);
    return out;
  }

  _fresh(graph, rows) {
    const state = Object.entries(this.model.graphs[graph].state).map(([name, { shape, dtype, start }]) => {
      const size = shape.reduce((product, length) => product * length, rows);
      return [name, this._tensor(dtype, Array(size).fill(start), [rows, ...shape])];
    });
    return Object.fromEntries(state);
  }

  _codes(grid) {
    return this._tensor("int32", grid.flat(), [1, grid.length, grid[0].length]);
  }

  /** The first row of a tensor. */
  _first({ type, data, dims }) {
    return this._tensor(type, data.slice(0, data.length / dims[0]), [1, ...dims.slice(1)]);
  }

  /** One row as two. */
  _twice({ type, data, dims }) {
    const both = new ARRAYS[type](2 * data.length);
    both.set(data);
    both.set(data, data.length);
    return new this.ort.Tensor(type, both, [2, ...dims.slice(1)]);
  }

  _tensor(type, data, dims) {
    return new this.ort.Tensor(type, ARRAYS[type].from(data), dims);
  }
}

/** Outputs "next.NAME" of a state as inputs NAME. */
function withoutNext(state) {
  return Object.fromEntries(Object.entries(state).map(([name, tensor]) => [name.slice("next.".length), tensor]));
}
