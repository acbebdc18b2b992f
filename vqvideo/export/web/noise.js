// Counter-based random numbers, equal to those of vqvideo/export/noise.py: murmur3's finaliser over each coordinate.

const GOLDEN = 0x9e3779b9;

function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** `count` whole numbers in 0 .. 2^31 - 1 for a dreamt step (from 0) of a seed (0 .. 2^53 - 1). */
export function noise(seed, step, count) {
  const key = mix(mix((seed + GOLDEN) | 0) ^ Math.floor(seed / 2 ** 32));
  const at = mix(key ^ Math.imul(step + 1, GOLDEN));
  return Int32Array.from({ length: count }, (_, place) => mix(at ^ Math.imul(place + 1, GOLDEN)) >>> 1);
}
