// The engine that dreams on the server of this page: JSON goes out, frames come back, over one websocket.

export class Engine {
  constructor(site) {
    this.onmessage = () => {};
    const address = new URL(site.socket, document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const token = new URLSearchParams(location.search).get("token");
    if (token !== null) address.searchParams.set("token", token);
    this._socket = new WebSocket(address.href);
    this._socket.binaryType = "arraybuffer";
    this._socket.onmessage = ({ data }) => this.onmessage(typeof data === "string" ? JSON.parse(data) : unpacked(data));
    this._socket.onclose = ({ reason }) => this._closed(reason);
  }

  post(message) {
    if (this._socket.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(message));
  }

  close() {
    this._left = true;
    this._socket.close();
  }

  _closed(reason) {
    if (this._left) return;
    const lost = "No connection to the server: it has ended, or this is not the address that its terminal shows.";
    this.onmessage({ type: "error", message: reason ? `The server says: ${reason}.` : lost, fatal: true });
  }
}

/** uint32 n | n bytes of JSON | frames of the dream | frames of the real environment */
function unpacked(data) {
  const size = new DataView(data).getUint32(0, true);
  const { frames_bytes: dreamt, real_bytes: real, ...message } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  message.frames = data.slice(4 + size, 4 + size + dreamt);
  if (real !== undefined) message.real = data.slice(4 + size + dreamt);
  return message;
}
