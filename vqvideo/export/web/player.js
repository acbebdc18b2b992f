// Time: asks the engine for latent steps and shows their frames at the recorded pace.

/** Plays one dream after the other.
 *
 * on.frame(frame, real, number): a frame is to be drawn; number 0 is the newest one of the context.
 * on.step(message): figures of a step, with its first frame. on.change(): running, replaying or the dream changed.
 * on.say(text): something that a person should know. */
export class Player {
  constructor(site, engine, controls, on) {
    Object.assign(this, { site, engine, controls, on });
    this.sampling = { ...site.sampling };
    this.running = this.replaying = false;
    this.stopAtEnd = true;
    this.dream = 0;
    this._clear();
  }

  /** Begins the dream of a start clip and a seed. */
  start(clip, seed) {
    this.clip = clip;
    this.dream += 1;
    this._clear();
    this._waiting = true;
    this.engine.post({ type: "start", dream: this.dream, start: clip, seed });
    this.on.change();
  }

  play(running) {
    this.running = running;
    this._single = false;
    this.on.change();
  }

  /** One latent step, then pause. */
  single() {
    this.running = false;
    this._single = true;
    this.on.change();
  }

  /** An answer of the engine to `start` or `step`. */
  receive(message) {
    if (message.dream !== this.dream) return;
    this._waiting = false;
    this._pace = message.ms ?? this._pace;
    const [height, width] = this.site.size;
    const bytes = height * width * 3;
    for (let at = 0; at < message.count; at++) {
      const of = (buffer) => buffer && new Uint8Array(buffer, at * bytes, bytes);
      this._queue.push({ frame: of(message.frames), real: of(message.real), message: at ? null : message });
    }
  }

  /** To be called with the time in milliseconds whenever the screen can be drawn. */
  tick(now) {
    const each = 1000 / this.site.fps;
    // A page that lay in the background does not hurry after the time that it missed.
    if (now - this._due > 4 * each) this._due = now;
    while (this._queue.length && now >= this._due) {
      this._show(this._queue.shift());
      this._due += each;
    }
    // As late as can be, so that the newest key counts; earlier where the engine is slow.
    if (!this._waiting && this._wanted && this._queue.length <= Math.ceil(this._pace / each)) this.request();
  }

  get _wanted() {
    const acting = !this.site.controls.turns || this.replaying || this.controls.active;
    return this._single || (this.running && acting);
  }

  /** Asks for the next latent step. */
  request() {
    const actions = this._actions();
    if (!actions) {
      this.play(false);
      this.on.say("The recorded actions end here.");
      return;
    }
    this._single = false;
    this._waiting = true;
    this.step += 1;
    this.actions.push(...actions);
    this.engine.post({ type: "step", dream: this.dream, step: this.step, actions, sampling: { ...this.sampling } });
  }

  _actions() {
    const { stride, starts } = this.site;
    if (!this.replaying) return Array(stride).fill(this.controls.take());
    const recorded = starts[this.clip].actions.slice(this.step * stride, (this.step + 1) * stride);
    return recorded.length === stride ? recorded : null;
  }

  _show({ frame, real, message }) {
    this.on.frame(frame, real, this.shown);
    this.shown += 1;
    if (!message?.step) return;
    this.on.step(message);
    if (this.stopAtEnd && message.termination >= 0.5 && this.running) {
      this.play(false);
      this.on.say("The model says that the episode ends here. Reset begins anew, Play dreams on regardless.");
    }
  }

  _clear() {
    Object.assign(this, { step: 0, shown: 0, actions: [], _queue: [], _waiting: false, _single: false, _due: 0, _pace: 0 });
  }
}
