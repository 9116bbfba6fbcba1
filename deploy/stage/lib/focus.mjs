// A focus that serves tokens to the users of homeservers.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { settle } from '../../../interop/lib/wait.mjs';
import { start, stop } from './program.mjs';

export class Focus {
  // `media` are the addresses that clients are told of; `authority` is whom homeservers' certificates are from; `homeserver`
  // is the URL of the one beside it, `serverName` its name. A focus that registers is an application service of it, and it
  // must be given `registration`; with `tokens` the homeserver passes requests for tokens on to it.
  constructor({ registers = false, ...settings }) {
    const { name, folder, binary, bind, ports, serverName } = settings;
    Object.assign(this, { name, folder, binary, settings, url: `http://${bind}:${ports.http}`, admin: `http://${bind}:${ports.admin}` });
    fs.mkdirSync(folder, { recursive: true });
    this.config = path.join(folder, 'weir.toml');
    this.log = path.join(folder, 'weir.log');
    if (registers) this.register(serverName);
    this.configure();
  }

  // For its next start. Without `delegation` clients keep their leaves alive themselves. With `user`, that one is the focus's,
  // and no application service tells it of rooms. `membership` says how much a room's members count.
  configure({ delegation = true, user, membership = 'when-visible' } = {}) {
    const { folder, bind, ports, media, serverName, homeserver, authority, tokens = false, level = 'info' } = this.settings;
    fs.writeFileSync(this.config, [
      '[http]', `bind = "${bind}:${ports.http}"`,
      '[media]', `bind = ${JSON.stringify(media)}`, `udp_port = ${ports.udp}`, `tcp_port = ${ports.tcp}`,
      '[admin]', `bind = "${bind}:${ports.admin}"`,
      '[log]', `level = "${level}"`,
      '[matrix]', `server_name = "${serverName}"`, `url = "${this.sfu}"`, `membership = "${membership}"`,
      `homeserver_url = "${homeserver}"`, `state_directory = "${folder}"`,
      ...(user ? this.asUser(user) : this.registration ? ['[matrix.appservice]', `registration = "${this.registration}"`, `tokens = ${tokens}`] : []),
      '[matrix.leaves]', `delegation = ${delegation}`,
      '[matrix.openid]', 'allow_networks = ["127.0.0.0/8"]', `authorities_file = "${authority.certificate}"`, '',
    ].join('\n'));
  }

  asUser({ id, password }) {
    const file = path.join(this.folder, 'password');
    fs.rmSync(file, { force: true });
    fs.writeFileSync(file, password, { mode: 0o600 });
    return ['[matrix.user]', `id = "${id}"`, `password_file = "${file}"`];
  }

  // Once, since the homeserver keeps to the tokens that it read.
  register(serverName) {
    this.registration = path.join(this.folder, 'appservice.yaml');
    if (fs.existsSync(this.registration)) return;
    const tokens = this.settings.tokens ? ['--tokens'] : [];
    execFileSync(this.binary, ['appservice', 'generate', '--server-name', serverName, '--url', this.url, '--out', this.registration, ...tokens]);
  }

  // Where clients connect.
  get sfu() { return `ws://${this.settings.bind}:${this.settings.ports.http}/livekit/sfu`; }

  // What clients are told by the homeserver.
  get service() { return `${this.url}/livekit/jwt`; }

  async start({ onLine, onExit } = {}) {
    this.process = start(this.name, this.binary, ['run', '--config', this.config],
      { log: this.log, cwd: this.folder, env: { RUST_BACKTRACE: '1' }, onLine, onExit });
    await settle(`${this.name} answers`, async () => this.process.ended || (await fetch(`${this.service}/healthz`)).ok, 20000);
    if (this.process.ended) throw new Error(`${this.name} did not start: ${this.process.tail.slice(-8).join('\n')}`);
  }

  stop(signal) {
    return stop(this.process, signal);
  }

  // One counter or gauge, summed over its labels.
  async metric(name) {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const samples = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }
}
