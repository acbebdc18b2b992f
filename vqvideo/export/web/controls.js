// Keys, touch buttons and sliders, and the flat action that they make together.

const ALIASES = { w: "ArrowUp", a: "ArrowLeft", s: "ArrowDown", d: "ArrowRight" };
const SHOWN = { ArrowUp: "↑", ArrowLeft: "←", ArrowDown: "↓", ArrowRight: "→", Space: "space" };

/** The flat action of a held base action and what is pressed (bindings, those of most keys last, then the newest).
 * Continuous columns add up, categorical ones take the last that differs from neutral. */
export function combined(columns, base, bindings) {
  const action = base.slice();
  for (const { action: wanted } of bindings) {
    columns.forEach(({ categories, neutral, low, high }, at) => {
      if (categories !== null) action[at] = wanted[at] === neutral ? action[at] : wanted[at];
      else action[at] = Math.min(high, Math.max(low, action[at] + wanted[at] - neutral));
    });
  }
  return action;
}

/** The bindings whose keys are all held, without those that a larger one among them includes. */
export function heldBindings(bindings, held) {
  const order = [...held];
  const down = bindings.filter(({ keys }) => keys.every((key) => held.has(key)));
  const within = (one, other) => one.keys.length < other.keys.length && one.keys.every((key) => other.keys.includes(key));
  const newest = ({ keys }) => Math.max(...keys.map((key) => order.indexOf(key)));
  return down
    .filter((one) => !down.some((other) => within(one, other)))
    .sort((one, other) => newest(one) - newest(other));
}

/** The name of a key as bindings give it. */
export function keyName(event, bindings) {
  const name = event.key === " " ? "Space" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const bound = (key) => bindings.some(({ keys }) => keys.includes(key));
  return bound(name) ? name : bound(ALIASES[name]) ? ALIASES[name] : null;
}

export class Controls {
  /** Fills the pad with touch buttons and the folded part with sliders; listens to the keyboard. */
  constructor({ columns, keys }, pad, folded) {
    this.columns = columns;
    this.bindings = keys;
    this.base = columns.map(({ neutral }) => neutral);
    this.held = new Set(); // keys, the newest last
    this.tapped = new Set(); // since the last step: a tap acts on one step at least
    this._buttons = new Map();
    this._fillPad(pad);
    columns.forEach((column, at) => folded.append(...this._baseControl(column, at)));
    addEventListener("keydown", (event) => this._key(event, true));
    addEventListener("keyup", (event) => this._key(event, false));
    addEventListener("blur", () => this.release());
  }

  get active() {
    return this.held.size > 0 || this.tapped.size > 0;
  }

  /** The action of the next step. */
  take() {
    const down = new Set([...this.tapped, ...this.held]);
    this.tapped.clear();
    return combined(this.columns, this.base, heldBindings(this.bindings, down));
  }

  release() {
    this.held.clear();
    this._show();
  }

  _key(event, down) {
    const inField = event.target.matches?.("input, select, textarea");
    const name = keyName(event, this.bindings);
    if (!name || (down && (inField || event.ctrlKey || event.metaKey || event.altKey))) return;
    if (name === "Space" && event.target.matches?.("button, summary")) return;
    if (!inField) event.preventDefault();
    if (!event.repeat) this._hold([name], down);
  }

  _hold(keys, down) {
    for (const key of keys) {
      if (down) this.tapped.add(key);
      this.held.delete(key);
      if (down) this.held.add(key);
    }
    this._show();
  }

  _show() {
    for (const [{ keys }, button] of this._buttons) button.classList.toggle("held", keys.every((key) => this.held.has(key)));
  }

  _fillPad(pad) {
    const arrows = this.bindings.filter(({ keys }) => keys.length === 1 && keys[0].startsWith("Arrow"));
    const cross = document.createElement("div");
    cross.className = "cross";
    if (arrows.length) pad.append(cross);
    const single = (key) => this.bindings.some(({ keys }) => keys.length === 1 && keys[0] === key);
    for (const binding of this.bindings) {
      // Several buttons are held together as several keys are.
      if (binding.keys.length > 1 && binding.keys.every(single)) continue;
      const button = this._button(binding);
      this._buttons.set(binding, button);
      (arrows.includes(binding) ? cross : pad).append(button);
    }
  }

  _button(binding) {
    const button = document.createElement("button");
    const key = document.createElement("kbd");
    key.textContent = binding.keys.map((name) => SHOWN[name] ?? name).join(" + ");
    button.type = "button";
    button.className = binding.keys.length === 1 ? binding.keys[0] : "";
    button.append(binding.label, key);
    const hold = (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      this._hold(binding.keys, true);
    };
    const leave = () => this._hold(binding.keys, false);
    button.addEventListener("pointerdown", hold);
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, leave);
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    // Of a keyboard or a screen reader: one step long. What follows a pointer was dealt with.
    button.addEventListener("click", (event) => event.detail || binding.keys.forEach((name) => this.tapped.add(name)));
    return button;
  }

  _baseControl(column, at) {
    const label = document.createElement("label");
    const input = column.categories === null ? slider(column) : choice(column);
    const output = document.createElement("output");
    input.id = `held-${at}`;
    label.htmlFor = input.id;
    label.append(column.name || "action", output);
    const show = () => (output.textContent = column.categories === null ? Number(input.value).toFixed(2) : "");
    input.addEventListener("input", () => {
      if (input.checkValidity()) this.base[at] = Number(input.value);
      show();
    });
    show();
    return [label, input];
  }
}

function slider({ low, high, neutral }) {
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: low, max: high, step: (high - low) / 200 || 1 });
  input.value = neutral;
  return input;
}

function choice({ categories, start, neutral, labels }) {
  if (categories > 500) {
    const input = document.createElement("input");
    return Object.assign(input, { type: "number", min: start, max: start + categories - 1, value: neutral, required: true });
  }
  const select = document.createElement("select");
  for (let value = start; value < start + categories; value++) {
    select.append(new Option(labels?.[value - start] ?? String(value), String(value), false, value === neutral));
  }
  return select;
}
