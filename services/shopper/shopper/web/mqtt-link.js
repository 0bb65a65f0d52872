// The edge's broker, spoken to from the browser: detection/<client> out, response/detection/<client> in.
import mqtt from "./vendor/mqtt.js";
import { Away, Refused, newKey } from "./api.js";
import { dataUrl } from "./photo.js";

const PATIENCE_MS = 15000;
const me = `web-${newKey().slice(0, 8)}`;
const asked = new Map(); // number of a question → what to do with its answer
let number = 0;
let link;

async function connected(url) {
  link ??= mqtt.connectAsync(url, { clientId: me, timerVariant: "native", connectTimeout: 5000, reconnectPeriod: 2000 }, false)
    .then(async (client) => {
      client.on("message", receive);
      await client.subscribeAsync(`response/detection/${me}/+`, { qos: 1 });
      return client;
    })
    .catch((error) => {
      link = undefined;
      throw new Away("The shop's MQTT broker does not answer. Switch MQTT off in the settings to ask over HTTP.", { cause: error });
    });
  return link;
}

export async function askOverMqtt(url, photo) {
  const [client, image] = await Promise.all([connected(url), dataUrl(photo)]);
  const mine = String(++number);
  const answer = new Promise((resolve, reject) => {
    const late = () => reject(new Away("No answer came over MQTT. Switch it off in the settings to ask over HTTP."));
    const timer = setTimeout(late, PATIENCE_MS);
    asked.set(mine, (body) => {
      clearTimeout(timer);
      if (body.status) reject(new Refused(body.status, body.detail));
      else resolve(body);
    });
  });
  try {
    await client.publishAsync(`detection/${me}/${mine}`, JSON.stringify({ image }), { qos: 1 });
    return await answer;
  } finally {
    asked.delete(mine);
  }
}

function receive(topic, payload) {
  asked.get(topic.split("/").at(-1))?.(JSON.parse(new TextDecoder().decode(payload)));
}
