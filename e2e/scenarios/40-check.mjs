// What operators are told about this path from a homeserver to a call.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { expect } from '../../interop/lib/wait.mjs';

const WELL_KNOWN = '/.well-known/matrix/client';

// What it says, and its status.
function check(world, user, server = user.homeserver.url, more = []) {
  return new Promise((done) => {
    const args = ['check', server, '--access-token', user.token, ...more];
    execFile(world.weir, args, { timeout: 60000 }, (error, said) => done({ said, status: error?.code ?? 0 }));
  });
}

const isWhole = ({ said, status }) => status === 0 && said.match(/^ok /gm)?.length === 8 && !said.includes('note:');

// A reverse proxy with TLS before a homeserver, where its name leads. `wellKnown` is what it says for the name.
async function serveName(world, homeserver, wellKnown) {
  const host = homeserver.serverName.split(':')[0];
  const { certificate, key } = world.authority.issue(homeserver.folder, host);
  const proxy = https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, (request, response) => {
    if (request.url === WELL_KNOWN) {
      response.writeHead(wellKnown ? 200 : 404, { 'access-control-allow-origin': '*' });
      response.end(wellKnown && JSON.stringify(wellKnown));
      return;
    }
    const onward = http.request(homeserver.url + request.url, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((done, failed) => proxy.once('error', failed).listen(443, host, done));
  return proxy;
}

export default [
  {
    name: 'weir check goes all the way from a real homeserver, and names what stops it',
    async run({ world }) {
      const user = await world.user('Alice', 'a');
      const whole = await check(world, user);
      expect(isWhole(whole), whole.said);
      await world.foci.a.stop();
      const broken = await check(world, user);
      expect(broken.status === 1 && broken.said.includes('FAILED  service: ') && broken.said.includes('remedy: '), broken.said);
    },
  },
  {
    name: 'weir check finds a homeserver by its name over TLS, and names what a page there may not do',
    async run({ world }) {
      const user = await world.user('Alice', 'a');
      const { serverName, url } = user.homeserver;
      const authorities = ['--authorities', world.authority.certificate];
      for (const [wellKnown, more, isRight] of [
        [{ 'm.homeserver': { base_url: `${url}/` } }, authorities, isWhole],
        [{ 'm.homeserver': { base_url: `${url}/` } }, [], ({ said, status }) => status === 1 && /FAILED +homeserver: .*certificate/.test(said)],
        // Without a word of its own the name is the homeserver's address. Its pages have TLS, and this focus has none.
        [undefined, authorities, ({ said, status }) => status === 1 && /ok +homeserver: https:/.test(said) && /FAILED +\w+: .*ws:/.test(said)],
      ]) {
        const proxy = await serveName(world, user.homeserver, wellKnown);
        try {
          const told = await check(world, user, serverName, more);
          expect(isRight(told), `${JSON.stringify(wellKnown)} ${more}: ${told.said}`);
        } finally {
          proxy.closeAllConnections();
          await new Promise((done) => proxy.close(done));
        }
      }
    },
  },
];
