// Two people, an encrypted room and everything they need for a call, until Ctrl-C.
import fs from 'node:fs';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Authority } from './lib/authority.mjs';
import { Focus } from './lib/focus.mjs';
import { Homeserver } from './lib/homeserver.mjs';
import { User } from './lib/matrix.mjs';
import { serve } from './lib/pages.mjs';
import { stopAll } from './lib/program.mjs';

const USAGE = `Two people in an encrypted video call through Weir, on this machine.

  deploy/try [--port N] [--mode compatibility|matrix_2_0] [--log L] [--fresh]

  --port N   the first of the ports, which are N+1 to N+8 (7800)
  --mode M   how Element Call tells who is in the call: by state events (compatibility) or sticky ones (matrix_2_0)
  --log L    how much Weir logs: info, debug, or levels by module (info)
  --fresh    forget the homeserver of the last time`;
const LOOPBACK = '127.0.0.1';
const PEOPLE = ['Alice', 'Bob'];

const { values: options } = parseArgs({
  options: {
    weir: { type: 'string' },
    synapse: { type: 'string' },
    folder: { type: 'string' },
    port: { type: 'string', default: '7800' },
    mode: { type: 'string', default: 'compatibility' },
    log: { type: 'string', default: 'info' },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const first = Number(options.port);
if (options.help || !(first > 1023 && first < 65500) || !['compatibility', 'matrix_2_0'].includes(options.mode)) {
  console.log(USAGE);
  process.exit(options.help ? 0 : 2);
}
const PORTS = {
  Alice: first + 1, Bob: first + 2, homeserver: first + 3, federation: first + 4,
  http: first + 5, tcp: first + 6, udp: first + 7, admin: first + 8,
};

const started = Date.now();
const say = (text) => console.log(`${new Date().toLocaleTimeString('en-GB')}  ${text}`);

let ending;
async function end(code, reason) {
  ending ??= (async () => {
    console.log();
    say(reason);
    await stopAll();
    say('stopped');
    process.exit(code);
  })();
  return ending;
}
process.on('SIGINT', () => end(0, 'stopping …'));
process.on('SIGTERM', () => end(0, 'stopping …'));
process.on('SIGHUP', () => end(0, 'stopping …'));

async function refuseTakenPorts() {
  for (const [name, port] of Object.entries(PORTS).filter(([name]) => name !== 'udp')) {
    await new Promise((resolve, reject) => {
      const probe = createServer().once('error', reject).listen(port, LOOPBACK, () => probe.close(resolve));
    }).catch(() => {
      throw new Error(`port ${port} (${name}) is taken: stop what listens there, or choose others with --port`);
    });
  }
}

// Chromium would reach loopback alone; Firefox gathers addresses only where the default route leads.
function mediaAddresses() {
  const others = Object.values(os.networkInterfaces()).flat()
    .filter(({ family, internal, address }) => family === 'IPv4' && !internal && !address.startsWith('169.254.'));
  return [LOOPBACK, ...others.slice(0, 1).map(({ address }) => address)];
}

// The same two people as the last time.
async function people(homeserver, file) {
  if (fs.existsSync(file)) {
    const users = JSON.parse(fs.readFileSync(file, 'utf8')).map((user) => new User(homeserver, user));
    for (const user of users) {
      await Promise.all([user.call('GET', '/_matrix/client/v3/account/whoami'), user.watcher()]).catch((error) => {
        throw new Error(`${user.name} of the last time is not known any more (${error.message}): start over with --fresh`);
      });
    }
    return users;
  }
  const users = [];
  for (const name of PEOPLE) users.push(await User.register(homeserver, name.toLowerCase(), name));
  const kept = users.map(({ id, device, token, password, name }) => ({ id, device, token, password, name }));
  fs.writeFileSync(file, JSON.stringify(kept), { mode: 0o600 });
  return users;
}

async function tell(user, room, names) {
  let before = [];
  for (;;) {
    const now = await user.callMembers(room, 20000).catch(() => null);
    if (ending) return;
    if (!now) {
      await new Promise((done) => setTimeout(done, 1000));
      continue;
    }
    for (const id of now.filter((id) => !before.includes(id))) say(`${names.get(id) ?? id} joined the call`);
    for (const id of before.filter((id) => !now.includes(id))) say(`${names.get(id) ?? id} left the call`);
    before = now;
  }
}

async function main() {
  await refuseTakenPorts();
  const folder = path.join(options.folder, String(first));
  if (options.fresh) fs.rmSync(folder, { recursive: true, force: true });
  const authority = new Authority(folder);
  const serverName = `${LOOPBACK}:${PORTS.federation}`;
  const focus = new Focus({
    name: 'Weir', folder: path.join(folder, 'weir'), binary: options.weir, bind: LOOPBACK, ports: PORTS, media: mediaAddresses(),
    authority, serverName, homeserver: `http://${LOOPBACK}:${PORTS.homeserver}`, level: options.log,
  });
  const homeserver = new Homeserver({
    name: 'Synapse', folder: path.join(folder, 'synapse'), python: options.synapse, authority, serverName, bind: LOOPBACK,
    clientPort: PORTS.homeserver, federationPort: PORTS.federation, transport: focus.service,
  });
  const died = (server) => (code) =>
    end(1, `${server.name} ended by itself (${code}):\n  ${server.process.tail.slice(-3).join('\n  ')}\n  log: ${server.log}`);
  await Promise.all([homeserver, focus].map(async (server) => {
    await server.start({ onExit: died(server) });
    say(`${server.name} is up`);
  }));

  const users = await people(homeserver, path.join(folder, 'people.json'));
  const [alice, bob] = users;
  // A new one each time: nobody is left in its call from the last.
  const room = await alice.createRoom('Weir', [bob]);
  await bob.join(room, homeserver);

  const pages = [];
  for (const user of users) {
    const { id, device, token, name } = user;
    pages.push(await serve({
      session: () => (say(`${name} opened the page`), { name, homeserver: homeserver.url, user: id, device, token, room }),
      settings: { matrix_rtc_mode: options.mode },
      port: PORTS[name],
    }));
  }
  say(`ready after ${((Date.now() - started) / 1000).toFixed(1)} s`);
  console.log(`
Open both links, in two windows of a browser or in two browsers, and let them use camera and microphone:

    ${users[0].name.padEnd(6)} ${pages[0].url}
    ${users[1].name.padEnd(6)} ${pages[1].url}

Both are then in an encrypted call. Logs: ${folder}
Ctrl-C stops everything.
`);
  await tell(alice, room, new Map(users.map(({ id, name }) => [id, name])));
}

main().catch((error) => end(1, error.errcode === 'M_USER_IN_USE' ? 'the last start broke off half-way: start over with --fresh' : error.message));
