// An animated PNG (Portable Network Graphics, third edition, W3C 2025) of RGB frames: lossless, and no encoder is needed.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(...parts) {
  let value = 0xffffffff;
  for (const part of parts) for (const byte of part) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function chunk(name, ...parts) {
  const kind = new TextEncoder().encode(name);
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return [numbers([4, size]), kind, ...parts, numbers([4, crc(kind, ...parts)])];
}

/** Big-endian numbers of [bytes, value] each. */
function numbers(...fields) {
  return Uint8Array.from(fields.flatMap(([bytes, value]) => [...Array(bytes).keys()].map((at) => value >>> (8 * (bytes - 1 - at)))));
}

/** Lines of a frame as differences to the line above, in zlib's format. */
async function compressed(frame, height, width) {
  const line = width * 3;
  const rows = new Uint8Array(height * (line + 1));
  for (let y = 0; y < height; y++) {
    rows[y * (line + 1)] = 2;
    for (let x = 0; x < line; x++) {
      rows[y * (line + 1) + 1 + x] = frame[y * line + x] - (y ? frame[(y - 1) * line + x] : 0);
    }
  }
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A Blob of frames (h, w, 3) bytes; `about`, a JSON value, is kept in the file as text. */
export async function animatedPng(frames, [height, width], fps, about) {
  const parts = [Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10)];
  const latin1 = JSON.stringify(about).replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  parts.push(...chunk("IHDR", numbers([4, width], [4, height], [1, 8], [1, 2], [1, 0], [1, 0], [1, 0])));
  parts.push(...chunk("tEXt", new TextEncoder().encode(`vqvideo\0${latin1}`)));
  parts.push(...chunk("acTL", numbers([4, frames.length], [4, 0])));
  let sequence = 0;
  const control = () => numbers(
    [4, sequence++], [4, width], [4, height], [4, 0], [4, 0], [2, Math.round(1e4 / fps)], [2, 1e4], [1, 0], [1, 0]);
  for (const [at, frame] of frames.entries()) {
    parts.push(...chunk("fcTL", control()));
    const data = await compressed(frame, height, width);
    parts.push(...(at ? chunk("fdAT", numbers([4, sequence++]), data) : chunk("IDAT", data)));
  }
  return new Blob([...parts, ...chunk("IEND")], { type: "image/png" });
}
