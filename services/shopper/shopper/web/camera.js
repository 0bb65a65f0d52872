// The stage: a live camera where there is one, or the photo that was chosen, dropped or pasted.
import { $, picture } from "./dom.js";
import { scaled } from "./photo.js";

const WISH = { video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 960 } }, audio: false };
const video = $("video");
let stream = null;

export const isLive = () => stream !== null && !video.hidden;

let starting = null; // asked twice at once, the camera starts once

export function start() {
  starting ??= open().finally(() => { starting = null; });
  return starting;
}

async function open() {
  if (!navigator.mediaDevices?.getUserMedia) {
    explain("A live camera needs https (or localhost). You can still take or choose a photo with the button on the left.");
    return false;
  }
  try {
    stream ??= await navigator.mediaDevices.getUserMedia(WISH);
  } catch (error) {
    explain(reason(error));
    return false;
  }
  for (const track of stream.getVideoTracks()) track.addEventListener("ended", stop);
  video.srcObject = stream;
  showLive();
  await video.play().catch(() => {}); // a page in the background may not play; it does when it is seen
  offerTorch();
  return true;
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
  video.hidden = true;
  $("torch").hidden = true;
  if ($("shown").hidden) $("blank").hidden = false;
  tellShutter();
}

/** Start at once where the shopper has allowed it before; ask nobody unasked. */
export async function resume() {
  try {
    const { state } = await navigator.permissions.query({ name: "camera" });
    if (state === "granted") await start();
  } catch {
    // This browser does not say; the button does.
  }
}

/** What the shutter does: take a photo where the camera is live, else bring it back or start it. */
export function shutter(take) {
  if (isLive()) return take();
  return stream ? showLive() : start();
}

/** The frame now seen, as a scaled JPEG. */
export async function snap() {
  if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) {
    await new Promise((resolve) => video.addEventListener("loadeddata", resolve, { once: true }));
  }
  const flash = $("flash");
  flash.classList.remove("on");
  void flash.offsetWidth; // so that the animation starts again
  flash.classList.add("on");
  return scaled(video);
}

/** A file as a scaled JPEG, shown in the camera's place. */
export async function load(file) {
  const photo = await scaled(file);
  show(photo);
  return photo;
}

function show(photo) {
  const image = picture(photo, { id: "shown", class: "shown", alt: "The photo that was chosen" });
  $("shown").replaceWith(image);
  video.hidden = true;
  $("blank").hidden = true;
  tellShutter();
}

function showLive() {
  $("shown").hidden = true;
  $("blank").hidden = true;
  video.hidden = false;
  tellShutter();
}

function tellShutter() {
  const label = isLive() ? "Take a photo" : stream ? "Back to the camera" : "Start the camera";
  $("shutter").setAttribute("aria-label", label);
}

function explain(text) {
  $("blank-text").textContent = text;
  $("blank-text").setAttribute("role", "alert");
}

function reason(error) {
  switch (error.name) {
    case "NotAllowedError": return "The camera is not allowed here. Allow it in the browser's site settings, or choose a photo.";
    case "NotFoundError": return "This device has no camera. Choose, drop or paste a photo instead.";
    case "NotReadableError": return "Another app uses the camera. Close that one and try again, or choose a photo.";
    default: return `The camera does not start (${error.name}). Choose a photo instead.`;
  }
}

function offerTorch() {
  const [track] = stream.getVideoTracks();
  $("torch").hidden = !track.getCapabilities?.().torch;
}

$("torch").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  const on = button.getAttribute("aria-pressed") !== "true";
  await stream?.getVideoTracks()[0].applyConstraints({ advanced: [{ torch: on }] });
  button.setAttribute("aria-pressed", on);
});
tellShutter();
