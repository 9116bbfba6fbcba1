// Clients of every kind behind one face: `await client.do('publish', {…})`.
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { launch } from './browsers.mjs';
import { start, stop } from './process.mjs';
import { expect, settle } from './wait.mjs';

const here = (file) => fileURLToPath(new URL(file, import.meta.url));

export const KINDS = {
  chromium: { version: 'current', browser: 'chromium', codecs: ['vp8', 'h264', 'vp9', 'av1'] },
  'chromium-dual': { version: 'dual', browser: 'chromium', codecs: ['vp8', 'h264', 'vp9', 'av1'] },
  firefox: { version: 'current', browser: 'firefox', codecs: ['vp8', 'vp9', 'av1'] },
  node: { program: ['node', [here('../clients/node.mjs')]], codecs: ['vp8', 'h264', 'vp9', 'av1'] },
  python: { program: ['python', [here('../clients/client.py')]], codecs: ['vp8', 'h264', 'vp9', 'av1'] },
  // interop/peer: shares no WebRTC code with the others, all of which build on the same two engines.
  rtc: { program: ['peer', []], codecs: ['vp8', 'h264', 'vp9', 'av1'] },
};

export class Clients {
  // Programs whose place depends on the machine: the Python that has the SDK, and the peer.
  constructor(focus, pages, programs) {
    Object.assign(this, { focus, pages, programs, browsers: new Map(), open: [] });
  }

  // A client of this kind that is not connected yet.
  async create(kind) {
    const { browser, version, program } = KINDS[kind];
    const client = browser
      ? await PageClient.create(await this.browser(browser), this.pages.url(version))
      : new ProcessClient(this.programs[program[0]] ?? program[0], program[1]);
    Object.assign(client, { kind, everybody: this.open });
    this.open.push(client);
    return client;
  }

  // A client that has joined.
  async join(kind, identity, room, { grant, extra, ...options } = {}) {
    const client = await this.create(kind);
    client.identity = identity;
    const token = await this.focus.token(identity, room, grant, extra);
    client.joined = await client.do('connect', { url: this.focus.url, token, ...options });
    return client;
  }

  async browser(name) {
    if (!this.browsers.has(name)) this.browsers.set(name, await launch(name));
    return this.browsers.get(name);
  }

  async closeAll() {
    await Promise.all(this.open.splice(0).map((client) => client.close().catch(() => {})));
  }

  async end() {
    await this.closeAll();
    for (const browser of this.browsers.values()) await browser.close().catch(() => {});
  }
}

class Client {
  async do(name, argument) {
    const answer = await this.call(name, argument);
    if (answer.error) {
      const error = new Error(`${this.kind} ${this.identity ?? ''}: ${name}: ${answer.error}`);
      throw Object.assign(error, { reason: answer.reason, status: answer.status });
    }
    return answer.ok;
  }

  // The remote track of this participant and kind, once it is there.
  async track(from, kind, source) {
    return settle(`${this.identity} gets ${from}'s ${kind}`, async () => (await this.do('remote'))
      .find((track) => track.from === from && track.kind === kind && track.subscribed && (!source || track.source === source)));
  }

  // Until this much more has been seen and heard of it.
  async plays(from, kind, { frames = 10, source, deadline = 45000 } = {}) {
    const before = await this.track(from, kind, source);
    return settle(`${this.identity} (${this.kind}) plays ${from}'s ${kind}`, async () => {
      const now = await this.track(from, kind, source);
      const played = kind === 'video' ? now.frames >= before.frames + frames : now.energy > before.energy && now.energy > 0.0001;
      return played ? now : null;
    }, deadline).catch(async (error) => {
      const sender = this.everybody.find((client) => client.identity === from);
      const told = await Promise.all([this, sender].map(async (client) => `${client?.identity}: ${JSON.stringify(await client?.inspect())}`));
      throw Object.assign(error, { message: `${error.message}; of ${JSON.stringify(before)}; statistics of ${told.join(', of ')}` });
    }).then((track) => {
      // A client that looks into packets says what was wrong with them.
      expect(!track.faults?.length, `${this.identity} (${this.kind}) finds fault with ${from}'s ${kind}: ${track.faults?.join('; ')}`);
      return track;
    });
  }

  // What the client's own statistics say, where it can tell.
  async inspect() {
    const answer = await this.call('inspect');
    return answer.ok ?? null;
  }

  async event(name, matches = () => true, deadline = 30000) {
    return settle(`${this.identity} (${this.kind}) notices ${name}`, async () =>
      (await this.do('events')).find((event) => event.name === name && matches(event)), deadline);
  }
}

class PageClient extends Client {
  static async create(browser, url) {
    const client = new PageClient();
    client.console = [];
    // Contexts of their own keep pages from sharing storage and visibility.
    client.context = await browser.createBrowserContext();
    client.page = await client.context.newPage();
    client.page.on('console', (message) => client.console.push(message.text().slice(0, 300)));
    await client.page.goto(url);
    await settle('the page loads', () => client.page.evaluate(() => window.ready === true));
    return client;
  }

  call(name, argument) {
    return this.page.evaluate((name, argument) => window.client(name, argument), name, argument ?? {});
  }

  get tail() { return this.console; }

  async close() {
    await this.context.close();
  }
}

class ProcessClient extends Client {
  constructor(command, args) {
    super();
    this.process = start(command, args, { cwd: path.dirname(args[0] ?? command) });
    this.waiting = new Map();
    this.next = 1;
    let buffer = '';
    this.process.child.stdout.setEncoding('utf8').on('data', (text) => {
      buffer += text;
      const lines = buffer.split('\n');
      buffer = lines.pop();
      for (const line of lines) this.take(line);
    });
    this.process.exited.then(() => {
      for (const resolve of this.waiting.values()) resolve({ error: 'the process ended' });
    });
  }

  take(line) {
    try {
      const answer = JSON.parse(line);
      this.waiting.get(answer.id)?.(answer);
      this.waiting.delete(answer.id);
    } catch {
      this.process.keep(line); // a library's own output
    }
  }

  call(name, argument) {
    const id = this.next++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.process.child.stdin.write(`${JSON.stringify({ id, name, argument })}\n`);
    });
  }

  get tail() { return this.process.tail; }

  async close() {
    await stop(this.process, 3000);
  }
}
