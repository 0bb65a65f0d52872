// Settings: how photos travel, who is signed in, installing the app.
import { call } from "./api.js";
import { overMqtt, setOverMqtt } from "./ask.js";
import { dialog, el, icon, toast } from "./dom.js";
import { openModels } from "./models.js";

export function openSettings({ mqtt, access, version }, install) {
  const box = dialog("Settings", mqttSwitch(mqtt),
    el("button", { class: "button", type: "button", onclick: () => { box.close(); openModels(); } }, icon("tag"), "What the shop has learnt"),
    el("a", { class: "button", href: "draw" }, icon("draw"), "Draw a digit"),
    install ? el("button", { class: "button primary", type: "button", onclick: () => { box.close(); install.prompt(); } }, "Install this app") : "",
    access?.needed ? account(access.holder) : "",
    el("p", { class: "soft small" }, version ? `App ${version}. ` : "", "Photos in the history stay on this device."));
}

function mqttSwitch(mqtt) {
  const ready = Boolean(mqtt?.module && mqtt.url);
  const input = el("input", { type: "checkbox", role: "switch", id: "mqtt", disabled: !ready, "aria-describedby": "mqtt-help",
    onchange: () => { setOverMqtt(input.checked); toast(input.checked ? "Photos travel over MQTT." : "Photos travel over HTTP."); } });
  input.checked = ready && overMqtt();
  return el("div", { class: "card" },
    el("label", { class: "switch" }, el("span", { class: "grow" }, el("strong", {}, "Ask over MQTT")), input),
    el("p", { class: "soft small", id: "mqtt-help" }, help(mqtt)));
}

function help(mqtt) {
  if (!mqtt) return "The shop did not say whether it has a broker for browsers. Try again when it answers.";
  if (!mqtt.module) return "The MQTT library is not here yet. On the shop's machine run: make web. Then reload this page.";
  if (!mqtt.url) return "This shop names no broker for browsers. Its operator sets MQTT_WS_URL.";
  return `Photos go to ${mqtt.url} instead of HTTP, and answers come back the same way.`;
}

function account(holder) {
  const out = async () => {
    await call("logout", { method: "POST" });
    location.assign("login");
  };
  return el("div", { class: "card row" }, el("p", { class: "grow" }, "Signed in as ", el("strong", {}, holder)),
    el("button", { id: "sign-out", class: "button", type: "button", onclick: out }, "Sign out"));
}
