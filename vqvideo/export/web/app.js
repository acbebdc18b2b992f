// The page: joins engine, player, controls and screens, and keeps the address in step with what is chosen.

import { animatedPng } from "./animated-png.js";
import { Controls } from "./controls.js";
import { Player } from "./player.js";
import { Meter, Screen } from "./screen.js";

const MOST_RECORDED = 64 * 2 ** 20; // bytes of frames that can be downloaded: the newest
const find = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);

function say(text, wrong = false) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
  find("notice").classList.toggle("error", wrong);
}

/** A number of the address, inside its limits; what is no number is left out. */
function asked(name, otherwise, low, high, whole = false) {
  const value = Number(address.get(name) ?? NaN);
  if (Number.isNaN(value)) return otherwise;
  const inside = Math.min(high, Math.max(low, value));
  return whole ? Math.round(inside) : inside;
}

function keep(name, value) {
  address.set(name, value);
  history.replaceState(null, "", `?${address}`);
}

async function siteFile() {
  const answer = await fetch("site.json").catch(() => null);
  if (!answer?.ok) throw new Error("site.json is missing beside this page: export the world again, or upload the whole folder.");
  return answer.json();
}

class Page {
  constructor(site, engine) {
    this.site = site;
    this.controls = new Controls(site.controls, find("pad"), find("held-columns"));
    this.player = new Player(site, engine, this.controls, {
      frame: (frame, real, number) => this._frame(frame, real, number),
      step: (message) => this._step(message),
      change: () => this._changed(),
      say,
    });
    this.screen = new Screen(find("dream"), site.size);
    this.real = new Screen(find("real"), site.size);
    this.recorded = [];
    this.films = new Map();
    this._meters();
    this._starts();
    this._sampling();
    this._buttons();
  }

  begin() {
    find("main").hidden = false;
    say("");
    // Who wants less motion starts it; others see at once what the page is.
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches || address.has("paused");
    this.player.running = !still;
    if (address.has("replay")) this._replay(true);
    this.restart();
    const tick = (now) => {
      this.player.tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  restart() {
    say("");
    this.recorded = [];
    for (const meter of Object.values(this.meters)) meter.clear();
    this.reward = this.realReward = 0;
    find("dream-sum").textContent = find("real-sum").textContent = "";
    this.realEnded = false;
    this.player.start(this.start, this.seed);
  }

  // ------------------------------------------------------------- what is shown

  _frame(frame, real, number) {
    this.screen.draw(frame);
    if (number) this.recorded.push(frame);
    while (this.recorded.length * frame.length > MOST_RECORDED) this.recorded.shift();
    find("download").disabled = !this.recorded.length;
    find("clock").textContent = `${(number / this.site.fps).toFixed(1)} s`;
    if (!number) this._besides(Boolean(real));
    if (real) this.real.draw(real);
    else this._film(number);
    if (number) document.documentElement.dataset.firstDream ??= performance.now().toFixed(0);
  }

  /** What the second canvas shows: the real environment, the film of the clip, or nothing. */
  _besides(alive) {
    this.alive = alive;
    find("real-caption").textContent = alive ? "Real environment" : "Real clip";
    this._changed();
  }

  _film(number) {
    const { film_frames: frames, film_columns: columns } = this.site.starts[this.player.clip];
    const film = this.films.get(this.player.clip);
    if (film?.complete && film.naturalWidth && number < frames) this.real.drawFrom(film, columns, number);
  }

  _step({ entropy, reward, termination, real_reward: real, real_ended: ended, real_end: how, real_error: broken }) {
    if (broken) say(broken, true);
    if (ended && !this.realEnded) say(`The real episode has ended${how ? ` (${how})` : ""}; the dream goes on.`);
    this.realEnded = ended;
    this.meters.entropy.add(entropy);
    this.reward += reward;
    if (real !== undefined) {
      this.realReward += real;
      find("dream-sum").textContent = `reward ${this.reward.toFixed(1)},`;
      find("real-sum").textContent = `reward ${this.realReward.toFixed(1)}`;
    }
    this.meters.reward?.add(reward);
    this.meters.termination?.add(termination);
  }

  _changed() {
    const { running, replaying, site } = this.player;
    find("pause").textContent = running ? "Pause" : "Play";
    find("replay").setAttribute("aria-pressed", replaying);
    find("real-figure").hidden = !(replaying || this.alive);
    find("pad").hidden = replaying;
    find("held").hidden = replaying || !site.controls.columns.length;
  }

  // ------------------------------------------------------------- what can be set

  _meters() {
    const home = find("meters");
    const digits = (count) => (value) => value.toFixed(count);
    this.meters = {
      entropy: new Meter(home, { name: "Entropy", unit: "nats per token", low: 0, colour: "--entropy", format: digits(2) }),
    };
    const { rewards, ends = rewards } = this.site;
    if (rewards) this.meters.reward = new Meter(home, {
      name: "Reward", unit: "of this step (sum)", low: 0, colour: "--reward", dashes: [6, 3],
      format: (value) => `${value.toFixed(2)} (${this.reward.toFixed(1)})`,
    });
    find("stop").parentElement.hidden = !ends;
    if (ends) this.meters.termination = new Meter(home, {
      name: "Termination", unit: "probability", low: 0, high: 1, colour: "--end", dashes: [2, 2], format: digits(3),
    });
  }

  _starts() {
    const { starts } = this.site;
    this.start = asked("start", 0, 0, starts.length - 1, true);
    starts.forEach(({ label, thumbnail }, at) => {
      const choice = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "start", value: at });
      radio.checked = at === this.start;
      const image = Object.assign(document.createElement("img"), { src: thumbnail ?? "data:,", alt: label, loading: "lazy" });
      choice.append(radio, image);
      choice.title = label;
      radio.addEventListener("change", () => {
        this.start = at;
        keep("start", at);
        this._loadFilm();
        this.restart();
      });
      find("thumbnails").append(choice);
    });
    this._loadFilm();
  }

  _loadFilm() {
    const { film, actions } = this.site.starts[this.start];
    find("replay").hidden = !film || !actions;
    if (!film && this.player.replaying) this._replay(false);
    if (!film || this.films.has(this.start)) return;
    const image = new Image();
    image.src = film;
    image.addEventListener("error", () => say(`${film} is missing: the real clip cannot be shown.`, true));
    image.addEventListener("load", () => this.player.clip === this.start && this._film(Math.max(0, this.player.shown - 1)));
    this.films.set(this.start, image);
  }

  _sampling() {
    const most = 2 ** 32 - 1;
    for (const name of ["temperature", "top_p", "guidance"]) {
      const input = find(name);
      const show = () => (find(`${name}-value`).textContent = Number(input.value).toFixed(2));
      input.value = asked(name, this.player.sampling[name], Number(input.min), Number(input.max));
      this.player.sampling[name] = Number(input.value);
      show();
      input.addEventListener("input", () => {
        this.player.sampling[name] = Number(input.value);
        show();
      });
      input.addEventListener("change", () => keep(name, input.value));
    }
    const hidden = this.site.guidance_ok === false || !this.site.controls.columns.length;
    find("guidance").hidden = find("guidance-label").hidden = hidden;
    if (hidden) this.player.sampling.guidance = 1;
    this.seed = asked("seed", 0, 0, most, true);
    find("seed").value = this.seed;
    find("seed").addEventListener("change", ({ target }) => {
      if (!target.value || !target.checkValidity()) return say(`A seed is a whole number from 0 to ${most}.`, true);
      this.seed = Number(target.value);
      keep("seed", this.seed);
      this.restart();
    });
  }

  _buttons() {
    find("stop").addEventListener("change", ({ target }) => (this.player.stopAtEnd = target.checked));
    find("notice").addEventListener("click", () => say(""));
    const press = {
      pause: () => (say(""), this.player.play(!this.player.running)),
      single: () => this.player.single(),
      reset: () => this.restart(),
      replay: () => (this._replay(!this.player.replaying), this.restart(), this.player.play(true)),
      download: () => this._download(),
    };
    for (const [id, act] of Object.entries(press)) find(id).addEventListener("click", act);
    const keys = { p: press.pause, n: press.single, r: press.reset };
    addEventListener("keydown", (event) => {
      const typing = event.target.matches?.("input[type=number], select");
      if (typing || event.ctrlKey || event.metaKey || event.altKey || find("main").hidden) return;
      keys[event.key.toLowerCase()]?.();
    });
    // A slider that was dragged does not keep the arrow keys from the game.
    addEventListener("pointerup", ({ target }) => target.matches?.("input[type=range]") && target.blur());
    document.addEventListener("visibilitychange", () => document.hidden && this.controls.release());
  }

  _replay(on) {
    this.player.replaying = on && Boolean(this.site.starts[this.start].film);
    if (this.player.replaying) address.set("replay", 1);
    else address.delete("replay");
    history.replaceState(null, "", `?${address}`);
    this._changed();
  }

  async _download() {
    const button = find("download");
    button.disabled = true;
    const { site, seed, start, player } = this;
    const about = { world: site.title, start, seed, sampling: player.sampling, actions: player.actions };
    const file = await animatedPng(this.recorded.slice(), site.size, site.fps, about);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${site.title}-dream-${start}-${seed}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    button.disabled = false;
  }
}

/** Dreams so many latent steps as fast as they come, draws them, and says how fast that was. */
async function benchmark(page, site, steps) {
  const { player } = page;
  const started = performance.now();
  const times = [];
  player.dream += 1;
  const answer = (message) => new Promise((resolve) => {
    page.receive = resolve;
    player.engine.post(message);
  });
  await answer({ type: "start", dream: player.dream, start: page.start, seed: page.seed });
  for (let step = 1; step <= steps; step++) {
    const before = performance.now();
    const actions = Array(site.stride).fill(page.controls.take());
    const { frames, count } = await answer({ type: "step", dream: player.dream, step, actions, sampling: { ...player.sampling } });
    const bytes = frames.byteLength / count;
    for (let at = 0; at < count; at++) page.screen.draw(new Uint8Array(frames, at * bytes, bytes));
    times.push(performance.now() - before);
  }
  times.sort((one, other) => one - other);
  const median = times[times.length >> 1];
  const all = (steps * site.stride * 1000) / (performance.now() - started);
  const result = { steps, frames_per_second: all, median_ms: median, median_frames_per_second: (site.stride * 1000) / median };
  document.documentElement.dataset.benchmark = JSON.stringify(result);
  find("main").hidden = false;
  say(`${steps} latent steps: ${all.toFixed(1)} frames/s in all; median step ${median.toFixed(2)} ms (${result.median_frames_per_second.toFixed(1)} frames/s).`);
}

async function main() {
  say("Loading the world …");
  const site = await siteFile();
  document.title = `${site.title}: a world that dreams`;
  find("title").textContent = site.title;
  const here = site.engine === "worker";
  find("subtitle").textContent = `a world model that dreams ${here ? "in this browser" : "on its server"}`;
  find("where").textContent = here
    ? "Everything is computed in this browser, from the files of this page; nothing is sent anywhere."
    : "The server of this page computes the dream.";
  find("note").textContent = site.note ?? "";
  find("note").hidden = !site.note;
  const { Engine } = await import(`./${site.engine}-engine.js`);
  const engine = new Engine(site);
  const page = new Page(site, engine);
  const steps = asked("benchmark", 0, 0, 1e6, true);
  page.receive = (message) => page.player.receive(message);
  const on = {
    progress({ loaded, total }) {
      Object.assign(find("progress"), { hidden: false, max: total, value: loaded });
    },
    ready() {
      find("progress").hidden = true;
      document.documentElement.dataset.ready = performance.now().toFixed(0);
      if (steps) benchmark(page, site, steps);
      else page.begin();
    },
    started: (message) => page.receive(message),
    step: (message) => page.receive(message),
    error({ message, fatal }) {
      say(fatal ? `${message} Reload the page to try again.` : message, true);
      find("progress").hidden = true;
      page.player.play(false);
    },
  };
  engine.onmessage = (message) => on[message.type]?.(message);
}

main().catch((error) => {
  say(error.message, true);
  console.error(error);
});
