// Two homeservers that federate, each with a focus beside it, and people who call each other.
import fs from 'node:fs';
import path from 'node:path';
import { Authority } from '../../deploy/stage/lib/authority.mjs';
import { Focus } from '../../deploy/stage/lib/focus.mjs';
import { Homeserver } from '../../deploy/stage/lib/homeserver.mjs';
import { User } from '../../deploy/stage/lib/matrix.mjs';
import { serve } from '../../deploy/stage/lib/pages.mjs';
import { launch } from '../../interop/lib/browsers.mjs';
import { Person } from './person.mjs';

const HOMES = {
  a: { address: '127.0.0.1', media: '10.78.0.1' },
  b: { address: '127.0.0.2', media: '10.78.0.2' },
};
const PORTS = { http: 7880, tcp: 7881, udp: 7882, admin: 7889 };
// Two more that pass requests for tokens on. Element Call takes it that such a homeserver has leaves kept alive, so nothing
// else is played on them.
const HOMES_WITH_TOKENS = {
  a: { address: '127.0.0.3', media: '10.78.0.1' },
  b: { address: '127.0.0.4', media: '10.78.0.2' },
};
const PORTS_WITH_TOKENS = { http: 7890, tcp: 7891, udp: 7892, admin: 7899 };
// Two people's encoders and decoders share few cores with everything else.
const QUALITY = { video: { max_resolution: 360, max_bitrate: 450000, max_framerate: 15 } };

export class World {
  constructor({ weir, synapse, folder, tokens = false }) {
    Object.assign(this, { weir, synapse, folder, tokens, homeservers: {}, foci: {}, browsers: new Map(), users: 0 });
    this.forget();
  }

  async start() {
    const { tokens } = this;
    const authority = this.authority = new Authority(this.folder);
    const ports = tokens ? PORTS_WITH_TOKENS : PORTS;
    const suffix = tokens ? '-tokens' : '';
    for (const [home, { address, media }] of Object.entries(tokens ? HOMES_WITH_TOKENS : HOMES)) {
      this.foci[home] = new Focus({
        name: `weir-${home}${suffix}`, folder: path.join(this.folder, `weir-${home}${suffix}`), binary: this.weir, bind: address, ports,
        media: [media], authority, level: 'info,weir_livekit=debug,weir_matrix=debug', serverName: `${address}:8448`,
        homeserver: `http://${address}:8008`, registers: true, tokens,
      });
      this.homeservers[home] = new Homeserver({
        name: `synapse-${home}${suffix}`, folder: path.join(this.folder, `synapse-${home}${suffix}`), python: this.synapse, authority,
        serverName: `${address}:8448`, bind: address, clientPort: 8008, federationPort: 8448, transport: this.foci[home].service,
        focus: tokens && this.foci[home].sfu, appservices: [this.foci[home].registration],
      });
    }
    await Promise.all([...Object.values(this.homeservers), ...Object.values(this.foci)].map((server) => server.start()));
  }

  // The two that pass requests for tokens on, started when they are first asked for.
  async withTokens() {
    if (!this.other) {
      this.other = new World({ weir: this.weir, synapse: this.synapse, folder: path.join(this.folder, 'tokens'), tokens: true });
      await this.other.start();
    }
    return this.other;
  }

  // A scenario's own people, pages and browsers.
  forget() {
    Object.assign(this, { people: [], pages: [], ownBrowsers: [], keepers: [] });
  }

  async user(name, home = 'a') {
    this.users += 1;
    return User.register(this.homeservers[home], `${name.toLowerCase()}-${this.users}`, name);
  }

  // Users in an encrypted room of the first.
  async room(users) {
    const [first, ...others] = users;
    const room = await first.createRoom('Call', others);
    for (const user of others) await user.join(room, first.homeserver);
    this.alsoKeep((folder) => keepState(folder, first, room));
    return room;
  }

  // The user at a page of its own, which is not open yet. `settings` are Element Call's.
  async person(user, room, { mode, browser = 'chromium', own = false, lobby = false, slowDevices = false, settings = {} }) {
    const { id, device, token, name, homeserver } = user;
    const page = await serve({
      session: () => ({ name, homeserver: homeserver.url, user: id, device, token, room, lobby }),
      settings: { matrix_rtc_mode: mode, media_quality: QUALITY, ...settings },
    });
    this.pages.push(page);
    const person = new Person(user, own ? await this.ownBrowser(browser) : await this.browser(browser), page.url);
    person.slowDevices = slowDevices;
    this.people.push(person);
    return person;
  }

  // Somebody at a page that is not of this world.
  visitor(name, url, context) {
    const person = new Person({ name }, null, url, context);
    this.people.push(person);
    return person;
  }

  // A profile that several share.
  async context() {
    return (await this.browser('chromium')).createBrowserContext();
  }

  async browser(kind) {
    if (!this.browsers.has(kind)) this.browsers.set(kind, await launch(kind));
    return this.browsers.get(kind);
  }

  // One that can be killed.
  async ownBrowser(kind) {
    const browser = await launch(kind);
    this.ownBrowsers.push(browser);
    return browser;
  }

  // A call of people at these homes, in the order of their joining.
  async call(mode, people) {
    const users = [];
    for (const { name, home } of people) users.push(await this.user(name, home));
    const room = await this.room(users);
    const joined = [];
    for (const [at, options] of people.entries()) {
      joined.push(await (await this.person(users[at], room, { mode, ...options })).join());
    }
    return { room, users, people: joined };
  }

  // What a scenario has to tell of its failure: it writes into the folder.
  alsoKeep(keeper) {
    this.keepers.push(keeper);
  }

  // Where each log ends now.
  marks() {
    return this.logs().map((file) => [file, fs.existsSync(file) ? fs.statSync(file).size : 0]);
  }

  logs() {
    const own = [...Object.values(this.foci), ...Object.values(this.homeservers)].map(({ log }) => log);
    return [...own, ...(this.other?.logs() ?? [])];
  }

  allFoci() {
    return [...Object.values(this.foci), ...(this.other?.allFoci() ?? [])];
  }

  // What was shown and logged since the marks.
  async keep(folder, marks) {
    fs.mkdirSync(folder, { recursive: true });
    const people = [...this.people, ...(this.other?.people ?? [])];
    await Promise.allSettled([...people.map((person) => person.keep(folder)), ...this.keepers.map((keeper) => keeper(folder))]);
    for (const [file, from] of marks) {
      if (fs.existsSync(file)) fs.writeFileSync(path.join(folder, `${path.basename(path.dirname(file))}.log`), fs.readFileSync(file).subarray(from));
    }
  }

  async clear() {
    await this.other?.clear();
    await Promise.all(this.people.map((person) => person.close()));
    for (const page of this.pages) page.close();
    for (const browser of this.ownBrowsers) await end(browser);
    this.forget();
    for (const focus of Object.values(this.foci)) if (focus.process.ended) await focus.start();
  }

  async end() {
    await this.clear();
    await this.other?.end();
    for (const browser of this.browsers.values()) await end(browser);
    await Promise.all([...Object.values(this.foci), ...Object.values(this.homeservers)].map((server) => server.stop()));
  }
}

// The room's state by the word of this user's homeserver.
export async function keepState(folder, user, room) {
  const state = await user.call('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(room)}/state`);
  fs.writeFileSync(path.join(folder, `${room.replace(/[^a-zA-Z0-9]+/g, '')}.json`), JSON.stringify(state, null, 1));
}

async function end(browser) {
  const killed = new Promise((done) => setTimeout(done, 5000, 'late'));
  if (browser.process()?.signalCode) return; // it was killed
  if (await Promise.race([browser.close().catch(() => 'late'), killed]) === 'late') browser.process()?.kill('SIGKILL');
}
