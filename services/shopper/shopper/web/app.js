"use strict";

// Pictures are scaled here: a phone's photo is megabytes, and the model looks at 224 pixels.
const MAX_SIDE = 640;
const QUALITY = 0.9;
const READY_EVERY_MS = 10000;

const $ = (id) => document.getElementById(id);
let picture = null; // the scaled JPEG now on the stage
let latest = 0; // only the answer to the newest picture is shown

async function answerOf(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `The shopper answered ${response.status}.`);
  return body;
}

async function call(path, options) {
  let response;
  try {
    response = await fetchWithToken(path, options);
  } catch {
    throw new Error("The shopper does not answer. Is the network there?");
  }
  return answerOf(response);
}

async function scaled(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
    throw new Error("This file is not a picture that the browser can read.");
  });
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("The picture could not be scaled."))),
      "image/jpeg",
      QUALITY,
    );
  });
}

function showPicture(blob) {
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
  $("hint").hidden = true;
  $("stage").classList.add("filled");
}

function clearPicture() {
  picture = null;
  $("preview").hidden = true;
  $("hint").hidden = false;
  $("stage").classList.remove("filled");
}

function showError(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

function showResult(answer) {
  const known = answer.known === "true";
  const percent = `${Math.round(answer.score * 100)} %`;
  $("result").hidden = false;
  $("result").classList.toggle("unknown", !known);
  $("label").textContent = known ? answer.label : "";
  $("price").textContent = known ? (answer.price === "N/A" ? "No price" : `$${answer.price}`) : "Not known yet";
  $("confidence").hidden = !known;
  $("score").value = answer.score;
  $("percent").textContent = percent;
  const guess = known || answer.guess === answer.item ? "" : `Perhaps ${answer.guess_label} (${percent}). `;
  $("note").textContent = `${guess}${answer.model}, version ${answer.version}`;
  offerTeaching(answer, known);
}

function offerTeaching(answer, known) {
  const select = $("product");
  const options = [new Option("Choose…", "", true, true)];
  options[0].disabled = true;
  for (const product of answer.products) options.push(new Option(product));
  select.replaceChildren(...options);
  $("teach-title").textContent = known ? "Not right? Teach it" : "Do you know it? Teach it";
  $("taught").textContent = "";
  $("teach").hidden = false;
  $("teach").open = !known;
}

async function detect(file) {
  const number = ++latest;
  showError(null);
  $("result").hidden = true;
  $("teach").hidden = true;
  $("stage").classList.add("busy");
  try {
    const blob = await scaled(file).catch((error) => {
      if (number === latest) clearPicture();
      throw error;
    });
    if (number !== latest) return;
    picture = blob;
    showPicture(blob);
    const answer = await call("/binary", { method: "POST", body: blob, headers: { "Content-Type": "image/jpeg" } });
    if (number === latest) showResult(answer);
  } catch (error) {
    if (number === latest) showError(error);
  } finally {
    if (number === latest) $("stage").classList.remove("busy");
  }
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The picture could not be read."));
    reader.readAsDataURL(blob);
  });
}

async function teach(event) {
  event.preventDefault();
  const product = $("product").value;
  const button = event.submitter || $("teach-form").querySelector("button");
  button.disabled = true;
  $("taught").textContent = "Keeping it…";
  try {
    const image = await dataUrl(picture);
    await call("/ingestion", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ image, product }),
    });
    $("taught").textContent = `Kept as ${product}. Send the training images when you have a few.`;
  } catch (error) {
    $("taught").textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

async function push() {
  $("push").disabled = true;
  $("pushed").textContent = "Sending…";
  try {
    const account = await call("/zip", { method: "POST" });
    $("pushed").textContent = {
      done: `${account.files} sent: ${account.stored} new, ${account.duplicates} known already.`,
      empty: "There is nothing to send.",
      queued: "The link is down: they will follow by themselves.",
    }[account.status];
  } catch (error) {
    $("pushed").textContent = error.message;
  } finally {
    $("push").disabled = false;
  }
}

async function lookReady() {
  const ready = $("ready");
  try {
    const state = await (await fetch("/readyz")).json();
    const away = Object.entries(state.checks).filter(([, outcome]) => outcome !== "ok").map(([name]) => name);
    ready.className = state.ready ? "ready yes" : "ready no";
    ready.textContent = state.ready ? "ready" : `waiting for ${away.join(", ")}`;
  } catch {
    ready.className = "ready no";
    ready.textContent = "no connection";
  }
}

for (const id of ["camera", "file"]) {
  $(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) detect(file);
  });
}

const stage = $("stage");
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
}
for (const type of ["dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    stage.classList.remove("over");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) detect(file);
});

$("teach-form").addEventListener("submit", teach);
$("push").addEventListener("click", push);
lookReady();
setInterval(() => document.hidden || lookReady(), READY_EVERY_MS);
