// ThumbHash (https://evanw.github.io/thumbhash/): a picture's placeholder, drawn as a tiny picture.

const EDGE_PX = 16;

/** The data URL of an opaque picture's placeholder; null for a transparent one, behind which it would stay visible. */
export function blurred(hash) {
  try {
    const bytes = Uint8Array.from(atob(hash), (character) => character.charCodeAt(0));
    return bytes.length < 5 || bytes[2] & 0x80 ? null : draw(bytes);
  } catch {
    return null; // no base64
  }
}

function draw(bytes) {
  const head = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const shape = bytes[3] | (bytes[4] << 8);
  const shorter = Math.max(1, shape & 7);
  const [across, down] = shape >> 15 ? [7, shorter] : [shorter, 7];
  let at = 10; // in halves of bytes
  const terms = (columns, rows, scale) => {
    const found = [];
    for (let y = 0; y < rows; y++) {
      for (let x = y ? 0 : 1; x * rows < columns * (rows - y); x++, at++) {
        found.push([x, y, (((bytes[at >> 1] >> ((at & 1) * 4)) & 15) / 7.5 - 1) * scale * 2]);
      }
    }
    return found;
  };
  const light = terms(Math.max(3, across), Math.max(3, down), ((head >> 18) & 31) / 31);
  const yellow = terms(3, 3, (((shape >> 3) & 63) / 63) * 1.25);
  const red = terms(3, 3, (((shape >> 9) & 63) / 63) * 1.25);
  const means = [(head & 63) / 63, ((head >> 6) & 63) / 31.5 - 1, ((head >> 12) & 63) / 31.5 - 1];
  const [width, height] = [across, down].map((count) => Math.max(1, Math.round((EDGE_PX * count) / 7)));
  const image = new ImageData(width, height);
  for (let index = 0; index < width * height; index++) {
    const x = (Math.PI * ((index % width) + 0.5)) / width;
    const y = (Math.PI * (Math.floor(index / width) + 0.5)) / height;
    const wave = (sum, [kx, ky, level]) => sum + level * Math.cos(x * kx) * Math.cos(y * ky);
    const [l, p, q] = [light, yellow, red].map((some, channel) => some.reduce(wave, means[channel]));
    const b = l - (2 / 3) * p;
    const r = (3 * l - b + q) / 2;
    image.data.set([255 * r, 255 * (r - q), 255 * b, 255], 4 * index); // which clamps each to a byte
  }
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.toDataURL();
}
