// A Synapse of our own, on a loopback address, with what MatrixRTC needs turned on.
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { settle } from '../../../interop/lib/wait.mjs';
import { start, stop } from './program.mjs';

// JSON is YAML.
const write = (file, value) => fs.writeFileSync(file, JSON.stringify(value, null, 1));
const UNLIMITED = { per_second: 1000, burst_count: 1000 };

export class Homeserver {
  // `serverName` is what user ids end with and where other servers look: a host and the federation port. `focus` is named
  // where the homeserver passes requests for tokens on to it; its registration says so too.
  constructor({
    name, folder, python, authority, serverName, bind, clientPort, federationPort, transport, focus, appservices = [],
  }) {
    Object.assign(this, { name, folder, python, serverName, url: `http://${bind}:${clientPort}` });
    fs.mkdirSync(folder, { recursive: true });
    this.log = path.join(folder, 'synapse.log');
    this.config = path.join(folder, 'homeserver.yaml');
    const host = serverName.slice(0, serverName.lastIndexOf(':'));
    const tls = authority.issue(folder, host);
    this.secret = this.secretOf('registration');
    write(path.join(folder, 'log.yaml'), {
      version: 1,
      formatters: { line: { format: '%(asctime)s %(levelname)s %(name)s %(request)s %(message)s' } },
      handlers: { file: { class: 'logging.FileHandler', formatter: 'line', filename: this.log } },
      root: { level: 'INFO', handlers: ['file'] },
      disable_existing_loggers: false,
    });
    write(this.config, {
      server_name: serverName,
      public_baseurl: `${this.url}/`,
      pid_file: path.join(folder, 'synapse.pid'),
      signing_key_path: path.join(folder, 'signing.key'),
      log_config: path.join(folder, 'log.yaml'),
      media_store_path: path.join(folder, 'media'),
      report_stats: false,
      listeners: [
        { port: clientPort, bind_addresses: [bind], type: 'http', tls: false, resources: [{ names: ['client', 'openid'] }] },
        { port: federationPort, bind_addresses: [bind], type: 'http', tls: true, resources: [{ names: ['federation', 'openid', 'keys'] }] },
      ],
      tls_certificate_path: tls.certificate,
      tls_private_key_path: tls.key,
      federation_custom_ca_list: [authority.certificate],
      ip_range_blacklist: [], // everything here is on loopback
      trusted_key_servers: [],
      suppress_key_server_warning: true,
      database: { name: 'sqlite3', args: { database: path.join(folder, 'homeserver.db') } },
      registration_shared_secret: this.secret,
      macaroon_secret_key: this.secretOf('macaroon'),
      form_secret: this.secretOf('form'),
      bcrypt_rounds: 4, // its users have random passwords that nobody types
      presence: { enabled: false },
      app_service_config_files: appservices,
      // Clients keep their call membership alive by delayed events, and restart them every few seconds.
      max_event_delay_duration: '24h',
      rc_message: UNLIMITED,
      rc_delayed_event_mgmt: UNLIMITED,
      rc_registration: UNLIMITED,
      rc_login: { address: UNLIMITED, account: UNLIMITED, failed_attempts: UNLIMITED },
      rc_joins: { local: UNLIMITED, remote: UNLIMITED },
      rc_invites: { per_room: UNLIMITED, per_user: UNLIMITED, per_issuer: UNLIMITED },
      rc_federation: { window_size: 1000, sleep_limit: 1000, sleep_delay: 0, reject_limit: 1000, concurrent: 50 },
      experimental_features: {
        msc3266_enabled: true, msc4143_enabled: true, msc4222_enabled: true, msc4306_enabled: true, msc4354_enabled: true,
        ...(focus && { msc4512_enabled: true }),
      },
      matrix_rtc: { transports: [{ type: 'livekit', livekit_service_url: transport, ...(focus && { url: focus }) }] },
    });
    if (!fs.existsSync(path.join(folder, 'signing.key'))) {
      execFileSync(python, ['-m', 'synapse._scripts.generate_signing_key', '-o', path.join(folder, 'signing.key')]);
    }
  }

  // Kept over restarts, or what was signed with it would be refused.
  secretOf(purpose) {
    const file = path.join(this.folder, `${purpose}.secret`);
    if (!fs.existsSync(file)) fs.writeFileSync(file, crypto.randomBytes(32).toString('hex'), { mode: 0o600 });
    return fs.readFileSync(file, 'utf8');
  }

  async start({ onExit } = {}) {
    this.process = start(this.name, this.python, ['-m', 'synapse.app.homeserver', '-c', this.config],
      { log: path.join(this.folder, 'synapse.out'), cwd: this.folder, onExit });
    await settle(`${this.name} answers`, async () => {
      if (this.process.ended) return 'ended';
      return (await fetch(`${this.url}/_matrix/client/versions`)).ok && 'up';
    }, 60000);
    if (this.process.ended) throw new Error(`${this.name} did not start: ${this.process.tail.slice(-8).join('\n')} (${this.log})`);
  }

  stop() {
    return stop(this.process);
  }
}
