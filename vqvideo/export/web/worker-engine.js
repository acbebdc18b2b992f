// The engine that dreams in this browser: a worker beside the page, which thus stays smooth.

export class Engine {
  constructor(site) {
    this.onmessage = () => {};
    const fatal = (message) => this.onmessage({ type: "error", message, fatal: true });
    this._worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this._worker.onmessage = ({ data }) => this.onmessage(data);
    this._worker.onerror = (event) => {
      event.preventDefault();
      fatal(`The dreaming part of this page could not run${event.message ? ` (${event.message})` : ": worker.js or one of its files is missing"}.`);
    };
    this._worker.postMessage({ type: "open", site });
  }

  post(message) {
    this._worker.postMessage(message);
  }

  close() {
    this._worker.terminate();
  }
}
