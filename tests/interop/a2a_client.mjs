// Sends a message with the client of @a2a-js/sdk and prints the id of the task.
// Usage: node a2a_client.mjs BASE_URL BINDING STREAMING
import { ClientFactory, ClientFactoryOptions, JsonRpcTransportFactory, RestTransportFactory } from "@a2a-js/sdk/client";

const [base, binding, streaming] = process.argv.slice(2);
const transport = binding === "JSONRPC" ? new JsonRpcTransportFactory() : new RestTransportFactory();
const factory = new ClientFactory({ ...ClientFactoryOptions.default, transports: [transport] });
const client = await factory.createFromUrl(base);
const part = { content: { $case: "text", value: "hello" }, metadata: undefined, filename: "", mediaType: "text/plain" };
const message = { messageId: crypto.randomUUID(), contextId: "", taskId: "", role: 1, parts: [part], metadata: undefined,
  extensions: [], referenceTaskIds: [] };
const request = { tenant: "", message, configuration: undefined, metadata: undefined };

const idOf = (event) => {
  const payload = event.payload ?? { value: event };
  return payload.value?.taskId || payload.value?.id;
};
let task;
if (streaming === "true") {
  for await (const event of client.sendMessageStream(request)) task ??= idOf(event);
} else {
  task = idOf(await client.sendMessage(request));
}
const found = await client.getTask({ tenant: "", id: task, historyLength: undefined });
if (found.id !== task) throw new Error(`another task: ${JSON.stringify(found)}`);
console.log(task);
