// Runs one HTTP client of Node against a provider, or against Callgate in front of it: `drive.mjs NAME STEP...`. Has the
// same steps and prints the same lines as drive.py.

import http from "node:http";
import { Readable } from "node:stream";

const { BASE, CONTROL, ROUNDS = "1" } = process.env;
const FILE = Buffer.alloc(3 * 1024 * 1024, Uint8Array.from({ length: 256 }, (_, n) => n));
const QUERY = "page=2&name=a%20b+c&sign=%2F%3d";
const ASK = { stream: true, messages: [{ role: "user", content: "Grüße" }] };
let seconds = [];

function control(path) {
  return new Promise((done, failed) => {
    http.get({ port: CONTROL, path, agent: false }, (answer) => answer.resume().on("end", done)).on("error", failed);
  });
}

function* pieces() {
  for (let at = 0; at < FILE.length; at += 65536) yield FILE.subarray(at, at + 65536);
}

/** Reads the events of the bodies that `start` returns, and tells the provider when the first one has arrived. */
async function read(start) {
  let got;
  for (let round = 0; round < Number(ROUNDS); round++) {
    const began = performance.now();
    got = [];
    let text = "";
    for await (const piece of await start()) {
      text += Buffer.from(piece).toString();
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines.filter((line) => line.startsWith("data:"))) {
        got.push(line.slice(5).trim());
        if (got.length > 1) continue;
        seconds.push((performance.now() - began) / 1000);
        await control("/seen");
      }
    }
  }
  return got;
}

class Generic {
  async plain() {
    return [
      await this.send("GET", `/v1/models?${QUERY}`),
      await this.send("POST", "/v1/echo", { text: "Grüße", number: 1.5, list: [1, 2] }),
      await this.send("PUT", "/v1/echo", {}),
    ];
  }

  async poll() {
    for (;;) {
      const [, text] = await this.send("GET", "/v1/jobs/job1");
      if (JSON.parse(text).status === "succeeded") return "done";
    }
  }

  async redirect() {
    return [await this.send("GET", "/v1/moved"), await this.send("POST", "/v1/moved", { text: "again" })];
  }

  callback() {
    return this.send("POST", "/v1/jobs", { input: "Grüße" });
  }
}

/** `fetch` of Node, and that of the package undici. */
class Fetch extends Generic {
  constructor(library) {
    super();
    this.fetch = library.fetch;
    this.FormData = library.FormData;
  }

  async send(method, path, value) {
    const headers = { "content-type": "application/json" };
    const body = value === undefined ? {} : { headers, body: JSON.stringify(value) };
    const answer = await this.fetch(BASE + path, { method, ...body });
    return [answer.status, await answer.text()];
  }

  stream() {
    const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(ASK) };
    return read(async () => (await this.fetch(`${BASE}/v1/chat/completions`, options)).body);
  }

  async upload() {
    const form = new this.FormData();
    form.set("name", "n");
    form.set("file", new Blob([FILE]), "f.bin");
    const whole = await this.fetch(`${BASE}/v1/upload`, { method: "POST", body: form });
    const body = Readable.from(pieces());
    return [await whole.text(), await (await this.fetch(`${BASE}/v1/upload`, { method: "POST", body, duplex: "half" })).text()];
  }
}

class Axios extends Generic {
  constructor(library) {
    super();
    this.axios = library.default.create({ baseURL: BASE, responseType: "text", transformResponse: (text) => text });
  }

  async send(method, url, data) {
    const answer = await this.axios.request({ method, url, data });
    return [answer.status, answer.data];
  }

  stream() {
    return read(async () => (await this.axios.post("/v1/chat/completions", ASK, { responseType: "stream" })).data);
  }

  async upload() {
    const form = new FormData();
    form.set("name", "n");
    form.set("file", new Blob([FILE]), "f.bin");
    const whole = await this.axios.post("/v1/upload", form);
    return [whole.data, (await this.axios.post("/v1/upload", Readable.from(pieces()), { maxRedirects: 0 })).data];
  }
}

const CLIENTS = {
  fetch: async () => new Fetch(globalThis),
  undici: async () => new Fetch(await import("undici")),
  axios: async () => new Axios(await import("axios")),
};
const [name, ...steps] = process.argv.slice(2);
const client = await CLIENTS[name]();
for (const step of steps) {
  await control(`/step/${step}`);
  seconds = [];
  let outcome;
  try {
    outcome = { got: await client[step]() };
  } catch (error) {
    outcome = { error: `${error.name}: ${error.message} ${error.cause ?? ""}`.slice(0, 400) };
  }
  console.log(JSON.stringify({ step, seconds, ...outcome }));
}
process.exit(0);
