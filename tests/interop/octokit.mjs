// Signs standard input with GitHub's own library: node octokit.mjs SECRET
import { sign } from "@octokit/webhooks-methods";

let body = "";
process.stdin.setEncoding("utf8");
for await (const piece of process.stdin) body += piece;
process.stdout.write(await sign(process.argv[2], body));
