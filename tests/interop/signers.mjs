// The JavaScript client libraries as a table. `signers.py` does the same for Python, and describes the commands.
// This file must be in the folder that contains `node_modules`.
import { createHash, createHmac, generateKeyPairSync, randomBytes, sign as signWithKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import { DefaultPushNotificationSender, InMemoryPushNotificationStore, ServerCallContext } from "@a2a-js/sdk/server";
import { verifyWebhook as verifyClerk } from "@clerk/backend/webhooks";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { Nango } from "@nangohq/node";
import Mux from "@mux/mux-node";
import { signWebhookPayload as signNotion } from "@notionhq/client";
import { sign as signGithub } from "@octokit/webhooks-methods";
import { validateEvent as verifyPolar, WebhookVerificationError as PolarForgery } from "@polar-sh/sdk/webhooks";
import { encodeSignatureHeader as signSanity } from "@sanity/webhook";
import "@shopify/shopify-api/adapters/node";
import { createSHA256HMAC as shopifyHmac } from "@shopify/shopify-api/runtime";
import bolt from "@slack/bolt/dist/receivers/verify-request.js";
import { EventSubMiddleware } from "@twurple/eventsub-http";
import { Receiver as QstashReceiver } from "@upstash/qstash";
import { WorkOS } from "@workos-inc/node";
import { HttpReceiver as ZoomReceiver } from "@zoom/rivet/chatbot";
import coinbase from "coinbase-commerce-node";
import { verifyKey as verifyDiscord } from "discord-interactions";
import { AccessToken } from "livekit-server-sdk";
import { Resend } from "resend";
import { sign as signRetell } from "retell-sdk/lib/webhook_auth";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import Telnyx from "telnyx";
import { getExpectedBodyHash, getExpectedTwilioSignature } from "twilio/lib/webhooks/webhooks.js";
// Internal functions with which the libraries sign and verify.
import { signDataWithKey as inngestHmac } from "./node_modules/inngest/helpers/net.js";
import square from "./node_modules/square/core/crypto/createHmacOverride.js";

const BODY = '{"id":"evt_1","object":"event","type":"job.completed","text":"grüße"}';
const TEXT = randomBytes(16).toString("hex");
const WHSEC = "whsec_" + randomBytes(32).toString("base64");
const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const ED25519 = Buffer.from(publicKey.export({ format: "jwk" }).x, "base64url");

const standardWebhooks = (prefix, Webhook) => (m) => ({
  [`${prefix}-id`]: "msg_1",
  [`${prefix}-timestamp`]: `${m.now}`,
  [`${prefix}-signature`]: new Webhook(m.secret).sign("msg_1", new Date(m.now * 1000), m.text),
});

async function livekit(m) {
  const token = new AccessToken(...m.secret.split(":"), { ttl: 300 });
  token.sha256 = createHash("sha256").update(m.text).digest("base64");
  return { authorization: await token.toJwt() };
}

/// Returns the JWT that QStash signs.
function qstashByHand(m) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = createHash("sha256").update(m.text).digest("base64url");
  const claims = { iss: "Upstash", sub: m.url, exp: m.now + 300, nbf: m.now, iat: m.now, jti: "jwt_1", body };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return { "upstash-signature": `${signed}.${createHmac("sha256", m.secret).update(signed).digest("base64url")}` };
}

const ed25519 = (text, encoding) => signWithKey(null, Buffer.from(text), privateKey).toString(encoding);

/// Verifies with Zoom's receiver, which is a server.
async function verifyZoom(m) {
  const receiver = new ZoomReceiver({ webhooksSecretToken: m.secret, port: 0 });
  const server = await receiver.start(0);
  const url = `http://127.0.0.1:${server.address().port}/zoom/events`;
  const answer = await fetch(url, { method: "POST", body: m.text, headers: m.headers });
  server.close();
  if (answer.status !== 200) throw new Error(await answer.text());
}

/// This library also requires a complete event of its own, after it has verified the signature.
function verifyPolarSignature(m) {
  try {
    verifyPolar(m.text, m.headers, m.secret);
  } catch (fault) {
    return !(fault instanceof PolarForgery);
  }
}

function verifyTwitch(m) {
  const middleware = new EventSubMiddleware({ apiClient: {}, hostName: "agent.example.com", secret: m.secret });
  const [id, timestamp, signature] = standard("twitch-eventsub-message").map((name) => m.headers[name]);
  return middleware._verifyData(id, timestamp, m.text, signature);
}

/// Sends the notification of a finished task with the sender of the A2A server.
const a2a = (how) => async (url, secret) => {
  const [store, context] = [new InMemoryPushNotificationStore(), new ServerCallContext({ requestedVersion: "1.0" })];
  await store.save("task-1", context, { id: "1", taskId: "task-1", tenant: "", token: "", url, ...how(secret) });
  const status = { state: 3, message: undefined, timestamp: undefined };
  const value = { taskId: "task-1", contextId: "context-1", status, metadata: undefined };
  await new DefaultPushNotificationSender(store).send({ payload: { $case: "statusUpdate", value } }, context);
};

const standard = (prefix) => [`${prefix}-id`, `${prefix}-timestamp`, `${prefix}-signature`];
const svixRequest = (m) => new Request(m.url, { method: "POST", headers: m.headers, body: m.text });

// The keys are the same as in `signers.py`.
const LIBRARIES = [
  // Libraries that sign.
  { package: "standardwebhooks", preset: "standard-webhooks", secret: WHSEC,
    sign: standardWebhooks("webhook", StandardWebhook) },
  { package: "svix", preset: "svix", secret: WHSEC, sign: standardWebhooks("svix", SvixWebhook) },
  { package: "@octokit/webhooks-methods", preset: "github",
    sign: async (m) => ({ "x-hub-signature-256": await signGithub(m.secret, m.text) }) },
  { package: "stripe", preset: "stripe", sign: (m) => ({ "stripe-signature": Stripe.webhooks.generateTestHeaderString(
    { payload: m.text, secret: m.secret, timestamp: m.now }) }) },
  { package: "twilio", preset: "twilio", query: `?foo=1&bodySHA256=${getExpectedBodyHash(BODY)}`,
    sign: (m) => ({ "x-twilio-signature": getExpectedTwilioSignature(m.secret, m.url, {}) }) },
  { package: "square", preset: "square", query: "?foo=%2F",
    sign: async (m) => ({ "x-square-hmacsha256-signature": await square.createHmacOverride(m.url + m.text, m.secret) }) },
  { package: "@notionhq/client", preset: "notion", sign: async (m) => (
    { "x-notion-signature": await signNotion({ body: m.text, verificationToken: m.secret }) }) },
  { package: "@shopify/shopify-api", preset: "shopify",
    sign: async (m) => ({ "x-shopify-hmac-sha256": await shopifyHmac(m.secret, m.text) }) },
  { package: "@mux/mux-node", preset: "mux", sign: async (m) => ({ "mux-signature": `t=${m.now},v1=` +
    await new Mux({ tokenId: "-", tokenSecret: "-" }).webhooks.computeSignature(`${m.now}.${m.text}`, m.secret) }) },
  { package: "@workos-inc/node", preset: "workos", settings: () => ({ tolerance: "10m" }),
    sign: async (m) => ({ "workos-signature": `t=${m.now}000, v1=` +
      await new WorkOS("-").webhooks.computeSignature(`${m.now}000`, m.text, m.secret) }) },
  { package: "@sanity/webhook", preset: "sanity",
    sign: async (m) => ({ "sanity-webhook-signature": await signSanity(m.text, m.now * 1000, m.secret) }) },
  { package: "coinbase-commerce-node", preset: "coinbase-commerce",
    sign: (m) => ({ "x-cc-webhook-signature": coinbase.Webhook.computeSignature(m.text, m.secret) }) },
  { package: "retell-sdk", preset: "retell",
    sign: async (m) => ({ "x-retell-signature": await signRetell(m.text, m.secret) }) },
  { package: "inngest", preset: "inngest", secret: "signkey-test-" + TEXT, sign: async (m) => (
    { "x-inngest-signature": `t=${m.now}&s=${await inngestHmac(m.text, m.secret, `${m.now}`, console)}` }) },
  { package: "livekit-server-sdk", preset: "livekit", secret: "APIkey:" + TEXT, sign: livekit,
    headers: { "content-type": "application/webhook+json" } },
  // Libraries that send.
  { package: "@a2a-js/sdk", preset: "a2a-token", signed: ["x-a2a-notification-token"], signed_body: false,
    send: a2a((secret) => ({ authentication: undefined, token: secret })) },
  { package: "@a2a-js/sdk", preset: "a2a-bearer", signed: ["authorization"], signed_body: false,
    send: a2a((secret) => ({ authentication: { scheme: "Bearer", credentials: secret } })) },
  // Libraries that only verify.
  { package: "@slack/bolt", preset: "slack", signed: ["x-slack-request-timestamp", "x-slack-signature"],
    verify: (m) => bolt.verifySlackRequest({ signingSecret: m.secret, body: m.text, headers: m.headers }) },
  { package: "@linear/sdk", preset: "linear", signed: ["linear-signature"], settings: () => ({ tolerance: "10m" }),
    body: `{"action":"update","type":"Issue","text":"grüße","webhookTimestamp":${Date.now()}}`,
    verify: (m) => new LinearWebhookClient(m.secret).verify(Buffer.from(m.text), m.headers["linear-signature"]) },
  { package: "@zoom/rivet", preset: "zoom", signed: ["x-zm-request-timestamp", "x-zm-signature"], verify: verifyZoom,
    body: '{"event":"meeting.started","payload":{"text":"grüße"}}' },
  { package: "@twurple/eventsub-http", preset: "twitch", signed: standard("twitch-eventsub-message"),
    headers: { "twitch-eventsub-message-type": "notification" }, verify: verifyTwitch },
  { package: "@nangohq/node", preset: "nango", signed: ["x-nango-hmac-sha256"],
    verify: (m) => new Nango({ secretKey: m.secret }).verifyIncomingWebhookRequest(m.text, m.headers) },
  { package: "@clerk/backend", preset: "clerk", secret: WHSEC, signed: standard("svix"),
    verify: (m) => verifyClerk(svixRequest(m), { signingSecret: m.secret }) },
  { package: "resend", preset: "resend", secret: WHSEC, signed: standard("svix"),
    verify: (m) => new Resend("-").webhooks.verify({ payload: m.text, webhookSecret: m.secret, headers: {
      id: m.headers["svix-id"], timestamp: m.headers["svix-timestamp"], signature: m.headers["svix-signature"] } }) },
  { package: "@polar-sh/sdk", preset: "polar", secret: "polar_whs_" + TEXT, signed: standard("webhook"),
    verify: verifyPolarSignature },
  { package: "@upstash/qstash", preset: "upstash-qstash", by_hand: qstashByHand, query: "?foo=1",
    verify: (m) => new QstashReceiver({ currentSigningKey: m.secret, nextSigningKey: m.secret }).verify(
      { signature: m.headers["upstash-signature"], body: m.text, url: m.url }) },
  { package: "telnyx", preset: "telnyx", secret: ED25519.toString("base64"),
    by_hand: (m) => ({ "telnyx-signature-ed25519": ed25519(`${m.now}|${m.text}`, "base64"), "telnyx-timestamp": `${m.now}` }),
    verify: (m) => new Telnyx({ apiKey: "-" }).webhooks.unwrap(m.text, { headers: m.headers, key: m.secret }) },
  { package: "discord-interactions", preset: "discord", secret: ED25519.toString("hex"),
    by_hand: (m) => ({ "x-signature-ed25519": ed25519(`${m.now}${m.text}`, "hex"), "x-signature-timestamp": `${m.now}` }),
    verify: (m) => verifyDiscord(m.text, m.headers["x-signature-ed25519"], m.headers["x-signature-timestamp"], m.secret) },
];
for (const library of LIBRARIES) library.name = `npm-${library.preset}`;

const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

/// Returns the body and the headers of the message that a library sends.
async function recorded(library) {
  let seen;
  const server = createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    seen = { text: Buffer.concat(pieces).toString(), headers: request.headers };
    response.writeHead(204).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await library.send(`http://127.0.0.1:${server.address().port}/`, library.secret ?? TEXT);
  server.closeAllConnections();
  server.close();
  return seen;
}

async function line(library, publicUrl) {
  const target = `/hooks/${library.name}${library.query ?? ""}`;
  const now = Math.floor(Date.now() / 1000);
  const message = { secret: library.secret ?? TEXT, url: publicUrl + target, text: library.body ?? BODY, now };
  const headers = { "content-type": "application/json", ...library.headers };
  const signer = library.sign ?? library.by_hand;
  let signed = {};
  if (library.send) {
    const sent = await recorded(library);
    message.text = sent.text;
    headers["content-type"] = sent.headers["content-type"];
    signed = Object.fromEntries(library.signed.map((name) => [name, sent.headers[name]]));
  } else if (signer) {
    signed = await signer(message);
  }
  return {
    name: library.name, library: library.package, version: version(library.package),
    signs: Boolean(library.sign ?? library.send), sends: Boolean(library.send), complete: Boolean(signer ?? library.send),
    preset: library.preset, settings: library.settings?.(message.url) ?? {}, secret: message.secret,
    public_url: publicUrl, method: "POST", target, at: now, headers: { ...headers, ...signed },
    body_b64: Buffer.from(message.text).toString("base64"),
    signed_headers: library.signed ?? Object.keys(signed), signed_body: library.signed_body ?? true,
    signed_query: Boolean(library.query),
  };
}

async function verdict(library, given) {
  let [accepted, fault] = [false, ""];
  try {
    const text = Buffer.from(given.body_b64, "base64").toString();
    accepted = (await library.verify({ ...given, text })) !== false;
  } catch (thrown) {
    fault = `${thrown}`;
  }
  return { name: library.name, accepted, fault };
}

const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");
for (const print of ["log", "info", "debug"]) console[print] = console.error;   // some libraries print
if (process.argv[2] === "sign") {
  for (const library of LIBRARIES) answer(await line(library, process.argv[3]));
} else {
  for await (const text of createInterface({ input: process.stdin })) {
    const given = JSON.parse(text);
    const library = LIBRARIES.find((library) => library.name === given.name);
    if (process.argv[2] === "send") await library.send(given.url, given.secret);
    else answer(await verdict(library, given));
  }
}
