// A certified authorization server that nobody here wrote (oidc-provider), with clients of a test's.
//
//   node authorization-server.cjs SETTINGS    a JSON file: {port, cert, key, clients, token_life}
//
// What it grants, refuses and ends is told on standard output, as a JSON object a line. Token requests
// are forms (RFC 6749), and nothing else.
"use strict";
const fs = require("node:fs");
const https = require("node:https");
const { Provider } = require("oidc-provider");

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { port, clients, token_life: life } = settings;
const clientAuthMethods = ["client_secret_post", "private_key_jwt", "none"];

const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients,
  clientAuthMethods,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_, client) => client.grantTypeAllowed("refresh_token"),
  routes: { authorization: "/oauth/authorize", token: "/oauth/token", introspection: "/introspect" },
  scopes: ["analytics:read", "pipelines:write"],
  ttl: { AccessToken: life, ClientCredentials: life, AuthorizationCode: 60, RefreshToken: 3600,
    Grant: 3600, Interaction: 600, Session: 3600 },
  enabledJWA: { clientAuthSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
  },
});

const tell = (event, fields) => console.log(JSON.stringify({ event, ...fields }));
const of = (ctx) => ({
  client: ctx.oidc.client?.clientId,
  grant: ctx.oidc.params?.grant_type,
});
provider.on("grant.success", (ctx) => tell("granted", of(ctx)));
provider.on("grant.error", (ctx, error) => tell("refused", { ...of(ctx), error: error.error, detail: error.error_detail }));
provider.on("grant.revoked", (ctx) => tell("revoked", of(ctx)));
provider.on("server_error", (_, error) => tell("server_error", { error: String(error?.stack) }));

const tls = { cert: fs.readFileSync(settings.cert), key: fs.readFileSync(settings.key) };
https.createServer(tls, provider.callback()).listen(port, "127.0.0.1", () => tell("listening", { port }));
