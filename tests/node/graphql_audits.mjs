// Runs the audits of graphql-http against a server: one line of JSON for each, {name, status, reason}.
import { serverAudits } from "graphql-http";

for (const audit of serverAudits({ url: process.argv[2], fetchFn: fetch })) {
  const { name, status, reason } = await audit.fn();
  console.log(JSON.stringify({ name, status, reason: reason ?? null }));
}
console.log(JSON.stringify(null));
