// Another agent: a server of @a2a-js/sdk that works on each task and completes it. Prints its port.
import { createServer } from "node:http";
import { AgentEvent, DefaultPushNotificationSender, DefaultRequestHandler, InMemoryPushNotificationStore, InMemoryTaskStore,
  JsonRpcTransportHandler, ServerCallContext } from "@a2a-js/sdk/server";

const executor = {
  async execute(context, bus) {
    const ids = { taskId: context.taskId, contextId: context.contextId };
    const status = (state) => ({ state, message: undefined, timestamp: undefined });
    bus.publish(AgentEvent.task({ id: ids.taskId, contextId: ids.contextId, status: status(1), artifacts: [], history: [],
      metadata: undefined }));
    for (const state of [2, 3]) bus.publish(AgentEvent.statusUpdate({ ...ids, status: status(state), metadata: undefined }));
    bus.finished();
  },
  async cancelTask() {},
};
const server = createServer(async (request, response) => {
  const base = `http://127.0.0.1:${server.address().port}`;
  const json = (value) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (request.method === "GET") return json(card(base));
  let body = "";
  for await (const part of request) body += part;
  const answer = await transport.handle(JSON.parse(body), new ServerCallContext({ requestedVersion: "1.0" }));
  if (typeof answer?.[Symbol.asyncIterator] !== "function") return json(answer);
  response.setHeader("content-type", "text/event-stream");
  for await (const event of answer) response.write(`data: ${JSON.stringify(event)}\n\n`);
  response.end();
});
const card = (base) => ({ name: "peer", description: "works", version: "1", skills: [],
  capabilities: { streaming: true, pushNotifications: true, extensions: [] }, defaultInputModes: ["text/plain"],
  defaultOutputModes: ["text/plain"], supportedInterfaces: [{ url: `${base}/`, protocolBinding: "JSONRPC", protocolVersion: "1.0" }] });
const store = new InMemoryPushNotificationStore();
const transport = new JsonRpcTransportHandler(new DefaultRequestHandler(card("http://127.0.0.1"), new InMemoryTaskStore(),
  executor, undefined, store, new DefaultPushNotificationSender(store)));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
