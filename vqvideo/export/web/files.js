// Files of the site: fetched, unpacked and checked before they are used.

/** The bytes of `name`, as `site.json` lists it under "files": {stored, size, bytes, sha256}. */
export async function load(site, name, onBytes) {
  const { stored, bytes, sha256 } = site.files[name];
  const answer = await fetch(stored).catch(() => null);
  if (!answer?.ok) throw new Error(`${stored} is missing beside this page${answer ? ` (the server says ${answer.status})` : ""}: upload the whole folder.`);
  const packed = await collected(answer.body, onBytes);
  const data = await unpacked(packed).catch(() => null);
  if (!data || data.length !== bytes || !(await matches(data, sha256))) {
    throw new Error(`${stored} is damaged: it is not the file that was exported. Upload it again, or export the world again.`);
  }
  return data;
}

async function collected(stream, onBytes) {
  const counted = new TransformStream({
    transform(part, controller) {
      onBytes(part.length);
      controller.enqueue(part);
    },
  });
  return new Uint8Array(await new Response(stream.pipeThrough(counted)).arrayBuffer());
}

/** Some servers unpack .gz files on their own. */
async function unpacked(data) {
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data;
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Browsers have SHA-256 for pages of https and of this machine only; elsewhere gzip's own checksum has to do. */
async function matches(data, sha256) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}
