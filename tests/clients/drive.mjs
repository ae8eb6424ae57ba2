// Runs one package of Node against a provider, or against Callgate in front of it: `drive.mjs NAME STEP...`. Has the
// same steps and prints the same lines as drive.py.

import dns from "node:dns";
import http from "node:http";
import { Readable } from "node:stream";

const { BASE, CONTROL, ROUNDS = "1", PROXIED, CHANGED } = process.env;
const FILE = Buffer.alloc(3 * 1024 * 1024, Uint8Array.from({ length: 256 }, (_, n) => n));
const QUERY = "page=2&name=a%20b+c&sign=%2F%3d";
const ASK = { stream: true, messages: [{ role: "user", content: "Grüße" }] };
let seconds = [];

// Finds no name but that of this host, so that a package that ignores the proxy cannot reach a real API.
if (PROXIED) {
  const resolve = dns.lookup;
  dns.lookup = (host, options, done) => {
    if (host === "localhost" || host === "127.0.0.1") return resolve(host, options, done);
    (done ?? options)(new Error(`the package looked for ${host}, and did not use the proxy`));
  };
}
// Packages that ignore the variables use the proxy after this change of the program.
if (CHANGED) {
  const { EnvHttpProxyAgent, setGlobalDispatcher } = await import("undici");
  setGlobalDispatcher(new EnvHttpProxyAgent());
}

function control(path) {
  return new Promise((done, failed) => {
    http.get({ port: CONTROL, path, agent: false }, (answer) => answer.resume().on("end", done)).on("error", failed);
  });
}

function* pieces() {
  for (let at = 0; at < FILE.length; at += 65536) yield FILE.subarray(at, at + 65536);
}

/** Reads the events that `start` returns, and tells the provider when the first one has arrived. */
async function read(start) {
  let got;
  for (let round = 0; round < Number(ROUNDS); round++) {
    const began = performance.now();
    got = [];
    for await (const event of await start()) {
      if (got.push(event) > 1) continue;
      seconds.push((performance.now() - began) / 1000);
      await control("/seen");
    }
  }
  return got;
}

/** Yields the data of server-sent events. */
async function* data(body) {
  let text = "";
  for await (const piece of body) {
    text += Buffer.from(piece).toString();
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

/** Asks until the state is final. */
async function until(done, ask) {
  while (!done(await ask()));
  return "done";
}

class Generic {
  async plain() {
    return [
      await this.send("GET", `/v1/models?${QUERY}`),
      await this.send("POST", "/v1/echo", { text: "Grüße", number: 1.5, list: [1, 2] }),
      await this.send("PUT", "/v1/echo", {}),
    ];
  }

  poll() {
    return until(([, text]) => JSON.parse(text).status === "succeeded", () => this.send("GET", "/v1/jobs/job1"));
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
    this.WebSocket = library.WebSocket;
  }

  websocket() {
    return new Promise((done, failed) => {
      const socket = new this.WebSocket(`${BASE.replace("http", "ws")}/v1/socket?model=m`);
      const got = [];
      socket.onopen = () => {
        socket.send("Grüße");
        socket.send(FILE.subarray(0, 100_000));
      };
      socket.onmessage = ({ data }) => {
        got.push(data.size ?? data);
        if (got.length === 2) socket.close();
      };
      socket.onclose = () => done(got);
      socket.onerror = ({ message, error }) => failed(error ?? new Error(message));
    });
  }

  async send(method, path, value) {
    const headers = { "content-type": "application/json" };
    const body = value === undefined ? {} : { headers, body: JSON.stringify(value) };
    const answer = await this.fetch(BASE + path, { method, ...body });
    return [answer.status, await answer.text()];
  }

  stream() {
    const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(ASK) };
    return read(async () => data((await this.fetch(`${BASE}/v1/chat/completions`, options)).body));
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
    return read(async () => data((await this.axios.post("/v1/chat/completions", ASK, { responseType: "stream" })).data));
  }

  async upload() {
    const form = new FormData();
    form.set("name", "n");
    form.set("file", new Blob([FILE]), "f.bin");
    const whole = await this.axios.post("/v1/upload", form);
    return [whole.data, (await this.axios.post("/v1/upload", Readable.from(pieces()), { maxRedirects: 0 })).data];
  }
}

class OpenAi {
  constructor({ default: OpenAI }) {
    this.client = new OpenAI({ apiKey: "placeholder" });
  }

  async plain() {
    const models = (await this.client.models.list()).data.map((model) => model.id);
    const answer = await this.client.chat.completions.create({ model: "m", messages: ASK.messages });
    return [models, answer.choices[0].message.content];
  }

  stream() {
    return read(() => this.client.chat.completions.create({ model: "m", ...ASK }));
  }

  async upload() {
    return (await this.client.files.create({ file: new File([FILE], "f.jsonl"), purpose: "batch" })).bytes;
  }

  async poll() {
    const { id } = await this.client.responses.create({ model: "m", input: "words", background: true });
    return until(({ status }) => status === "completed", () => this.client.responses.retrieve(id));
  }

  async redirect() {
    return (await this.client.files.content("file-1")).text();
  }
}

class Replicate {
  constructor({ default: Library }) {
    this.client = new Library({ auth: "placeholder", baseUrl: BASE ? `${BASE}/v1` : undefined });
  }

  async plain() {
    return (await this.client.models.get("owner", "model")).name;
  }

  stream() {
    return read(() => this.client.stream("owner/model", { input: { prompt: "Grüße" } }));
  }

  async upload() {
    return (await this.client.files.create(new File([FILE], "f.bin"))).id;
  }

  poll() {
    return until(({ status }) => status === "succeeded", () => this.client.predictions.get("other"));
  }

  async callback() {
    const prediction = { input: { prompt: "Grüße" } };
    const first = await this.client.predictions.create({ version: "v1", ...prediction });
    return [first.id, (await this.client.predictions.create({ model: "owner/model", ...prediction })).id];
  }
}

const CLIENTS = {
  fetch: async () => new Fetch(globalThis),
  undici: async () => new Fetch(await import("undici")),
  axios: async () => new Axios(await import("axios")),
  "openai-node": async () => new OpenAi(await import("openai")),
  "replicate-node": async () => new Replicate(await import("replicate")),
};
const [name, ...steps] = process.argv.slice(2);
// A name such as fetch-24 also has the version of Node.
const client = await CLIENTS[name.replace(/-\d+$/, "")]();
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
