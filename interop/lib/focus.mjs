// The focus under test.
import fs from 'node:fs';
import path from 'node:path';
import { AccessToken } from 'livekit-server-sdk';
import { start } from './process.mjs';
import { settle } from './wait.mjs';

export const KEY = 'interop';
export const SECRET = 'a secret for tests, of forty characters.';

export class Focus {
  constructor(binary, address, address6, scratch) {
    Object.assign(this, { binary, address, port: 7880, admin: 7889 });
    this.config = path.join(scratch, 'weir.toml');
    fs.writeFileSync(this.config, [
      '[http]', `bind = "${address}:${this.port}"`,
      '[media]', `bind = ["${address}", "${address6}"]`,
      '[admin]', `bind = "127.0.0.1:${this.admin}"`,
      '[log]', 'level = "info,weir_livekit=debug,weir_core=debug"',
      '[keys]', `${KEY} = "${SECRET}"`, '',
    ].join('\n'));
    this.log = [];
  }

  get url() { return `ws://${this.address}:${this.port}`; }
  get http() { return `http://${this.address}:${this.port}`; }

  async start() {
    this.process = start(this.binary, ['run', '--config', this.config], { env: { ...process.env, NO_COLOR: '1', RUST_BACKTRACE: '1' } });
    this.process.tail = this.log;
    this.process.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.log.push(...text.split('\n').filter(Boolean));
      this.log.splice(0, Math.max(0, this.log.length - 2000));
    });
    await settle('the focus answers', async () => (await fetch(`${this.http}/`)).ok, 20000);
  }

  async kill(signal = 'SIGKILL') {
    this.process.child.kill(signal);
    return this.process.exited;
  }

  async token(identity, room, grant = {}, extra = {}) {
    const token = new AccessToken(KEY, SECRET, { identity, name: identity, ttl: 3600, ...extra });
    token.addGrant({ room, roomJoin: true, canUpdateOwnMetadata: true, ...grant });
    return token.toJwt();
  }

  // One counter or gauge, summed over its labels that match.
  async metric(name, labels = {}) {
    const text = await (await fetch(`http://127.0.0.1:${this.admin}/metrics`)).text();
    let sum = 0;
    for (const line of text.split('\n')) {
      const match = line.match(/^(\w+)(?:\{(.*)\})? ([0-9.e+]+)$/);
      if (match?.[1] !== name) continue;
      if (Object.entries(labels).every(([key, value]) => match[2]?.includes(`${key}="${value}"`))) sum += Number(match[3]);
    }
    return sum;
  }

  // The parts of a metric that are not zero, by reason.
  async parts(name) {
    const text = await (await fetch(`http://127.0.0.1:${this.admin}/metrics`)).text();
    const parts = [...text.matchAll(new RegExp(`^${name}\\{.*?reason="(\\w+)".*?\\} ([0-9.e+]+)$`, 'gm'))];
    return parts.filter(([, , count]) => Number(count) > 0).map(([, label, count]) => `${label} ${count}`).join(', ');
  }

  // What is known of each participant's line.
  async lines() {
    return (await (await fetch(`http://127.0.0.1:${this.admin}/debug/lines`)).json()).lines;
  }
}
