// A real OpenID provider for the tests, on loopback and in clear HTTP.
//
// It prints one line of JSON when it listens: its port, and the key that its access tokens (JWT,
// RS256) are signed with. It ends when its standard input does, so that none outlives its test.
// Beside what oidc-provider answers there is /test/…: counters, settings, and a way to take refresh
// tokens back as an administrator would.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

// Version 8 is the last that runs on Debian 12's Node.
import Provider from 'oidc-provider';

// Nobody reads our output after the first line, so notices go where warnings go.
console.info = console.warn;

const USER = 'ops@example.com';
const AUDIENCE = 'https://imap.example.com';
const KEY = 'test-key';

const settings = {
  // Lifetimes in seconds, and how often a device should ask.
  accessTokenSeconds: 3600,
  deviceCodeSeconds: 600,
  pollSeconds: 1,
  // A status (503, 429 …) that token requests are answered with instead; 0 is none.
  failWith: 0,
};
const counters = {};

/** What the provider has to remember, in memory. */
class Store {
  static all = new Map();

  constructor(model) {
    this.prefix = `${model}:`;
  }

  async upsert(id, payload) {
    Store.all.set(this.prefix + id, payload);
  }

  async find(id) {
    return Store.all.get(this.prefix + id);
  }

  async findBy(name, value) {
    for (const [key, payload] of Store.all) {
      if (key.startsWith(this.prefix) && payload[name] === value) return payload;
    }
    return undefined;
  }

  async findByUid(uid) {
    return this.findBy('uid', uid);
  }

  async findByUserCode(code) {
    return this.findBy('userCode', code);
  }

  async consume(id) {
    Store.all.get(this.prefix + id).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    Store.all.delete(this.prefix + id);
  }

  async revokeByGrantId(grant) {
    for (const [key, payload] of Store.all) {
      if (key.startsWith(this.prefix) && payload.grantId === grant) Store.all.delete(key);
    }
  }
}

const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
const redirects = ['http://127.0.0.1', 'http://localhost'];
const signIn = ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'];

const configuration = {
  adapter: Store,
  jwks: { keys: [{ ...pair.privateKey.export({ format: 'jwk' }), kid: KEY, alg: 'RS256', use: 'sig' }] },
  cookies: { keys: ['of no value'] },
  clients: [
    {
      client_id: 'native',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: redirects,
      grant_types: signIn,
      response_types: ['code'],
    },
    {
      client_id: 'desktop',
      client_secret: 'desktop-secret-of-the-tests',
      application_type: 'native',
      token_endpoint_auth_method: 'client_secret_post',
      redirect_uris: redirects,
      grant_types: signIn,
      response_types: ['code'],
    },
    {
      client_id: 'service',
      client_secret: 'service-secret-of-the-tests',
      token_endpoint_auth_method: 'client_secret_post',
      redirect_uris: [],
      grant_types: ['client_credentials'],
      response_types: [],
    },
  ],
  scopes: ['openid', 'offline_access', 'imap'],
  findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  issueRefreshToken: async (_context, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: async () => false,
  rotateRefreshToken: true,
  ttl: {
    AccessToken: () => settings.accessTokenSeconds,
    ClientCredentials: () => settings.accessTokenSeconds,
    DeviceCode: () => settings.deviceCodeSeconds,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 86400,
  },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async () => AUDIENCE,
      useGrantedResource: async () => true,
      getResourceServerInfo: async () => ({
        scope: 'imap',
        audience: AUDIENCE,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256', kid: KEY } },
      }),
    },
  },
  formats: {
    customizers: {
      // A service has no address of its own: both kinds of token name the mailbox here. Dovecot 2.3
      // takes `JWT` alone for a type, and not the `at+jwt` of RFC 9068.
      jwt: async (_context, _token, jwt) => {
        jwt.payload.email = USER;
        jwt.header = { typ: 'JWT' };
      },
    },
  },
};

/** What is for the tests alone. */
function control(path, body) {
  switch (path) {
    case '/test/counters':
      return counters;
    case '/test/settings':
      return Object.assign(settings, JSON.parse(body));
    case '/test/revoke-refresh-tokens':
      for (const key of Store.all.keys()) if (key.startsWith('RefreshToken:')) Store.all.delete(key);
      return {};
    default:
      return undefined;
  }
}

async function text(request) {
  let whole = '';
  for await (const part of request) whole += part;
  return whole;
}

let provided;
const server = createServer(async (request, response) => {
  const { pathname: path } = new URL(request.url, 'http://localhost');
  if (path.startsWith('/test/')) {
    const answer = control(path, await text(request));
    const body = JSON.stringify(answer ?? {});
    response.writeHead(answer ? 200 : 404, { 'content-length': Buffer.byteLength(body) });
    response.end(body);
    return;
  }
  counters[path] = (counters[path] ?? 0) + 1;
  if (path === '/token' && settings.failWith) {
    response.writeHead(settings.failWith, { 'content-type': 'text/html' });
    response.end('<h1>Out of order</h1>');
    return;
  }
  provided(request, response);
});

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, configuration);
  provider.use(async (context, next) => {
    await next();
    // RFC 8628, section 3.2: without `interval` a device asks every five seconds.
    if (context.body?.device_code) context.body.interval = settings.pollSeconds;
  });
  for (const event of ['server_error', 'grant.error']) {
    provider.on(event, (_context, error) => console.error(error));
  }
  provided = provider.callback();
  const key = pair.publicKey.export({ type: 'spki', format: 'pem' });
  console.log(JSON.stringify({ port, key }));
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
