// Asking what a photo shows: over HTTP, or over MQTT where that is switched on.
import { call } from "./api.js";

const SWITCH = "caravan-mqtt";

export const overMqtt = () => localStorage.getItem(SWITCH) === "on";
export const setOverMqtt = (on) => localStorage.setItem(SWITCH, on ? "on" : "off");

export async function ask(photo, { mqtt, key }) {
  if (overMqtt() && mqtt?.module && mqtt.url) {
    const { askOverMqtt } = await import("./mqtt-link.js");
    return askOverMqtt(mqtt.url, photo);
  }
  return call("binary", { method: "POST", body: photo, headers: { "Content-Type": "image/jpeg", "Idempotency-Key": key } });
}
