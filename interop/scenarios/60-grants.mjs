// What tokens allow, and how refusals look.
import { AccessToken, TrackSource } from 'livekit-server-sdk';
import { KEY, SECRET } from '../lib/focus.mjs';
import { expect, settle, sleep } from '../lib/wait.mjs';

export default [
  {
    name: 'validate answers with the status that clients act on, readable by web pages',
    async run({ focus, room }) {
      const good = await focus.token('alice', room);
      const sign = async (secret, grant, identity = 'alice', ttl = 600) => {
        const token = new AccessToken(KEY, secret, { identity, ttl });
        token.addGrant(grant);
        return token.toJwt();
      };
      const status = async (path, token, headers = {}) => {
        const query = token ? `?access_token=${token}` : '';
        const response = await fetch(`${focus.http}${path}${query}`, { headers: { origin: 'https://call.example', ...headers } });
        expect(response.headers.get('access-control-allow-origin') === '*', `${path}: no CORS header`);
        return response.status;
      };
      const validate = '/rtc/validate';
      expect(await status(validate, good) === 200, 'a good token');
      expect(await status('/livekit/sfu/rtc/validate', good) === 200, 'behind a prefix');
      expect(await status(validate) === 401, 'no token');
      expect(await status(validate, 'nonsense') === 401, 'nonsense');
      expect(await status(validate, await sign('another secret of many characters.....', { room, roomJoin: true })) === 401, 'a forged token');
      expect(await status(validate, await sign(SECRET, { room })) === 401, 'without roomJoin');
      expect(await status(validate, await sign(SECRET, { roomJoin: true, room: '' })) === 400, 'without a room');
      expect(await status(validate, await sign(SECRET, { roomJoin: true, room }, 'x'.repeat(300))) === 400, 'an endless identity');
      expect(await status(validate, undefined, { authorization: `Bearer ${good}` }) === 200, 'in the header');
      expect(await status(validate, good, { authorization: good }) === 401, 'a header without Bearer');
      expect(await status('/rtc/v1/validate', good) === 400, 'v1 without a join request');
      const plain = await fetch(`${focus.http}/rtc?access_token=${good}`);
      expect(plain.status === 404, 'no upgrade');
      expect((await fetch(`${focus.http}/nothing`)).status === 404, 'an unknown path');
      const preflight = await fetch(`${focus.http}/rtc/validate`, { method: 'OPTIONS', headers: { origin: 'https://call.example', 'access-control-request-method': 'GET', 'access-control-request-headers': 'authorization' } });
      expect(preflight.ok && preflight.headers.get('access-control-allow-headers') === 'authorization', 'preflight');
    },
  },
  {
    name: 'an expired token is refused as not allowed',
    async run({ clients, room, focus }) {
      const alice = await clients.create('chromium');
      const token = new AccessToken(KEY, SECRET, { identity: 'alice', ttl: '1s' });
      token.addGrant({ room, roomJoin: true });
      const [head, body, _] = (await token.toJwt()).split('.');
      const broken = `${head}.${body}.AAAA`;
      const answer = await alice.call('connect', { url: focus.url, token: broken, connect: { maxRetries: 0 } });
      expect(answer.error && answer.status === 401, JSON.stringify(answer));
    },
  },
  {
    name: 'who may not publish cannot; who may not subscribe gets nothing',
    async run({ clients, room }) {
      const silent = await clients.join('chromium', 'silent', room, { grant: { canPublish: false } });
      const deaf = await clients.join('chromium-dual', 'deaf', room, { grant: { canSubscribe: false } });
      const refused = await silent.call('publish', { source: 'camera' });
      expect(refused.error, 'publishing is refused');
      await deaf.do('publish', { source: 'camera' });
      await silent.plays('deaf', 'video');
      const alice = await clients.join('node', 'alice', room);
      await alice.do('publish', { source: 'camera' });
      await silent.plays('alice', 'video');
      expect((await deaf.do('remote')).every((track) => !track.subscribed), 'nothing is subscribed');
    },
  },
  ...['chromium', 'rtc'].map((kind) => ({
    name: `only the granted sources may be published (${kind})`,
    async run({ clients, room }) {
      const alice = await clients.join(kind, 'alice', room, { grant: { canPublish: true, canPublishSources: [TrackSource.CAMERA] } });
      await alice.do('publish', { source: 'camera' });
      const refused = await alice.call('publish', { source: 'microphone' });
      expect(refused.error, 'the microphone is refused');
    },
  })),
  {
    name: 'a hidden participant is not seen, and sees',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const ghost = await clients.join('chromium', 'ghost', room, { grant: { hidden: true } });
      await alice.do('publish', { source: 'camera' });
      await ghost.plays('alice', 'video');
      expect((await alice.do('participants')).length === 0, 'alice sees nobody');
    },
  },
  {
    name: 'a publisher decides who may have its tracks',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      const carol = await clients.join('chromium-dual', 'carol', room);
      await alice.do('permit', { all: false, permissions: [{ participantIdentity: 'bob', allowAll: true }] });
      await sleep(300);
      await alice.do('publish', { source: 'camera' });
      await bob.plays('alice', 'video');
      expect((await carol.do('remote')).every((track) => !track.frames), 'carol gets nothing');
      await alice.do('permit', { all: true });
      await carol.plays('alice', 'video');
    },
  },
  {
    name: 'without auto-subscribe nothing comes until it is asked for',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const { sid } = await alice.do('publish', { source: 'camera' });
      const bob = await clients.join('chromium', 'bob', room, { connect: { autoSubscribe: false } });
      await settle('bob knows of the track', async () => (await bob.do('remote')).some((track) => track.sid === sid));
      await sleep(500);
      expect((await bob.do('remote')).every((track) => !track.subscribed), 'nothing is subscribed');
      await bob.do('subscribe', { sid, subscribed: true });
      await bob.plays('alice', 'video');
      await bob.do('subscribe', { sid, subscribed: false });
      await settle('nothing is subscribed again', async () => (await bob.do('remote')).every((track) => !track.subscribed));
    },
  },
];
