// Drawing: frames, the film of a start clip, and the curves of the meters.

/** A canvas of frames of (height, width). */
export class Screen {
  constructor(canvas, [height, width]) {
    Object.assign(canvas, { height, width });
    this.canvas = canvas;
    this._context = canvas.getContext("2d");
    this._image = new ImageData(width, height);
    this._image.data.fill(255);
  }

  /** (h, w, 3) bytes. */
  draw(frame) {
    const { data } = this._image;
    for (let from = 0, to = 0; from < frame.length; from += 3, to += 4) {
      data[to] = frame[from];
      data[to + 1] = frame[from + 1];
      data[to + 2] = frame[from + 2];
    }
    this._context.putImageData(this._image, 0, 0);
  }

  /** One frame of a film whose frames lie beside and below each other in one picture. */
  drawFrom(film, columns, number) {
    const { width, height } = this.canvas;
    const [x, y] = [(number % columns) * width, Math.floor(number / columns) * height];
    this._context.drawImage(film, x, y, width, height, 0, 0, width, height);
  }
}

/** A figure that changes with each latent step: its name, newest value and curve. */
export class Meter {
  constructor(home, { name, unit, low, high, colour, format, dashes = [] }) {
    Object.assign(this, { low, high, colour, format, dashes });
    this.fixed = high !== undefined;
    this.values = [];
    const row = document.createElement("div");
    row.className = "meter";
    row.innerHTML = `<span>${name} <small>${unit}</small></span><output></output><canvas aria-hidden="true"></canvas>`;
    home.append(row);
    [this._output, this._canvas] = [row.querySelector("output"), row.querySelector("canvas")];
    // What changes many times a second is not to be read aloud.
    this._output.setAttribute("aria-live", "off");
    this.clear();
  }

  clear() {
    this.values = [];
    this._output.textContent = "–";
    this._draw();
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > 150) this.values.shift();
    this._output.textContent = this.format(value);
    this._draw();
  }

  _draw() {
    const canvas = this._canvas;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const low = Math.min(this.low, ...this.values);
    const high = this.fixed ? this.high : Math.max(low + 1e-6, this.high ?? 1e-6, ...this.values);
    const y = (value) => height - scale * 2 - ((value - low) / (high - low)) * (height - scale * 4);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = scale;
    context.strokeRect(0, y(Math.max(0, low)), width, 0);
    context.strokeStyle = style.getPropertyValue(this.colour);
    context.setLineDash(this.dashes.map((length) => length * scale));
    context.lineWidth = 2 * scale;
    context.beginPath();
    this.values.forEach((value, at) => context.lineTo((at / 149) * width, y(value)));
    context.stroke();
    context.setLineDash([]);
  }
}
