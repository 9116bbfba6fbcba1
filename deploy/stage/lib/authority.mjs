// A certificate authority of our own: homeservers speak TLS with each other, and trust nobody without.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const DAYS = '3650';
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });

export class Authority {
  constructor(folder) {
    fs.mkdirSync(folder, { recursive: true });
    this.certificate = path.join(folder, 'authority.crt');
    this.key = path.join(folder, 'authority.key');
    if (fs.existsSync(this.certificate)) return;
    openssl('req', '-x509', ...KEY, '-keyout', this.key, '-out', this.certificate, '-days', DAYS, '-subj', '/CN=Weir stage',
      '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  }

  // A certificate for an IP address or a name, with its key, in this folder.
  issue(folder, host) {
    const [key, request, extensions, certificate] =
      ['tls.key', 'tls.csr', 'tls.ext', 'tls.crt'].map((file) => path.join(folder, file));
    if (!fs.existsSync(certificate)) {
      const kind = /^[0-9.]+$|:/.test(host) ? 'IP' : 'DNS';
      fs.writeFileSync(extensions, `subjectAltName=${kind}:${host}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n`);
      openssl('req', ...KEY, '-keyout', key, '-out', request, '-subj', `/CN=${host}`);
      openssl('x509', '-req', '-in', request, '-CA', this.certificate, '-CAkey', this.key, '-CAcreateserial',
        '-days', DAYS, '-extfile', extensions, '-out', certificate);
    }
    return { certificate, key };
  }
}
