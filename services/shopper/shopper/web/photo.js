// Photos, made small before they travel: a phone's are megabytes, and the model looks at 224 pixels.
const MAX_SIDE = 1024;
const THUMB_SIDE = 240;
const QUALITY = 0.9;

class NoPhoto extends Error {}

/** Scale a file, blob or video; decoding and encoding happen beside the main thread where the browser can. */
export async function scaled(source, side = MAX_SIDE) {
  const bitmap = await createImageBitmap(source, { imageOrientation: "from-image" }).catch((error) => {
    throw new NoPhoto("The browser cannot read this file as a photo. Try a JPEG, PNG or WebP.", { cause: error });
  });
  try {
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    return await encoded(bitmap, width, height);
  } finally {
    bitmap.close();
  }
}

export const thumbnail = (photo) => scaled(photo, THUMB_SIDE);

/** Base64 as a data: URL, which the shopper takes. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new NoPhoto("The photo could not be read."));
    reader.readAsDataURL(blob);
  });
}

async function encoded(bitmap, width, height) {
  if (globalThis.OffscreenCanvas) {
    const canvas = new OffscreenCanvas(width, height);
    paint(canvas, bitmap);
    return canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  }
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  paint(canvas, bitmap);
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new NoPhoto("The photo could not be scaled.")));
    canvas.toBlob(done, "image/jpeg", QUALITY);
  });
}

function paint(canvas, bitmap) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // JPEG has no transparency; paper is white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
