// Coming, going, and coming back.
import { dropping } from '../lib/firewall.mjs';
import { expect, settle, sleep } from '../lib/wait.mjs';

const DUPLICATE_IDENTITY = 2;
const SERVER_SHUTDOWN = 3;

async function call(clients, room, first, second) {
  const alice = await clients.join(first, 'alice', room);
  const bob = await clients.join(second, 'bob', room);
  for (const client of [alice, bob]) {
    await client.do('publish', { source: 'camera' });
    await client.do('publish', { source: 'microphone' });
  }
  await Promise.all([alice.plays('bob', 'video'), bob.plays('alice', 'video'), bob.plays('alice', 'audio')]);
  return [alice, bob];
}

export default [
  ...['chromium', 'chromium-dual', 'firefox'].map((kind) => ({
    name: `${kind} loses its WebSocket and resumes without losing media`,
    async run({ clients, room, focus }) {
      const [alice, bob] = await call(clients, room, kind, 'chromium');
      const { sid } = await alice.do('state');
      const before = await bob.track('alice', 'video');
      const resumed = await focus.metric('weir_joins_total', { stage: 'resumed' });
      await alice.do('cutSignal');
      await settle('the session is resumed', async () => (await focus.metric('weir_joins_total', { stage: 'resumed' })) > resumed);
      await settle('the client is connected', async () => (await alice.do('state')).state === 'connected');
      expect((await alice.do('state')).sid === sid, 'the session is the same');
      const after = await bob.track('alice', 'video');
      expect(after.sid === before.sid && after.frames > before.frames, 'the picture went on');
      expect((await bob.do('events')).every((event) => event.name !== 'trackUnpublished'), 'nothing was unpublished');
      await Promise.all([alice.plays('bob', 'video'), bob.plays('alice', 'video')]);
    },
  })),
  {
    name: 'the focus is killed and started again three times; clients come back by themselves',
    deadline: 300000,
    async run({ clients, room, focus, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('python', 'bob', room);
      const carol = await clients.join('chromium-dual', 'carol', room);
      for (const client of [alice, bob, carol]) {
        await client.do('publish', { source: 'camera' });
        await client.do('publish', { source: 'microphone' });
      }
      const all = () => Promise.all([
        alice.plays('bob', 'video'), alice.plays('carol', 'audio'), bob.plays('alice', 'video'), bob.plays('alice', 'audio'),
        carol.plays('bob', 'video'), carol.plays('alice', 'audio'),
      ]);
      await all();
      for (let round = 0; round < 3; round += 1) {
        await focus.kill('SIGKILL');
        await sleep(200);
        const start = Date.now();
        await focus.start();
        await settle('all have joined again', async () => (await focus.metric('weir_participants')) === 3, 60000);
        note(`round ${round + 1}: all joined again ${Date.now() - start} ms after the restart`);
        await all();
      }
    },
  },
  ...[['chromium', 'chromium-dual'], ['rtc', 'chromium'], ['chromium', 'rtc']].map(([old, young]) => ({
    name: `the same identity twice: the old one (${old}) leaves for the new one (${young}), and says why`,
    async run({ clients, room }) {
      const bob = await clients.join('chromium', 'bob', room);
      const first = await clients.join(old, 'alice', room);
      const second = await clients.join(young, 'alice', room);
      const left = await first.event('disconnected');
      expect(left.reason === DUPLICATE_IDENTITY, `the reason is ${left.reason}`);
      await second.do('publish', { source: 'camera' });
      await bob.plays('alice', 'video');
      expect((await bob.do('participants')).length === 1, 'bob sees one alice');
    },
  })),
  {
    name: 'media survives a change of address',
    async run({ clients, room, focus }) {
      const [alice, bob] = await call(clients, room, 'chromium', 'chromium');
      const { sid } = await alice.do('state');
      // The network takes the old port away for good; the restart must find another.
      const { port } = await alice.do('path');
      await dropping(`-p udp --sport ${port}`, async () => {
        await alice.do('simulate', { scenario: 'signal-reconnect' });
        await settle('another port is in use', async () => (await alice.do('path')).port !== port, 60000);
        await settle('the client is connected', async () => (await alice.do('state')).state === 'connected');
        await Promise.all([alice.plays('bob', 'video'), bob.plays('alice', 'video')]);
        expect((await alice.do('state')).sid === sid, 'the session is the same');
      });
    },
  },
  ...[['chromium', 'node'], ['rtc', 'chromium'], ['chromium', 'rtc']].map(([leaver, stayer]) => ({
    name: `a leave of ${leaver} is told ${stayer} at once, with nothing left behind`,
    async run({ clients, room, focus }) {
      const [alice, bob] = await call(clients, room, leaver, stayer);
      await alice.do('disconnect');
      await bob.event('participantDisconnected', (event) => event.from === 'alice');
      await settle('the focus forgets the peer', async () =>
        (await focus.metric('weir_publications')) === 2 && (await focus.metric('weir_subscriptions')) === 0);
    },
  })),
  {
    name: 'SIGTERM tells clients to leave, and ends within the deadline',
    async run({ clients, room, focus, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium-dual', 'bob', room);
      const carol = await clients.join('rtc', 'carol', room);
      const start = Date.now();
      const { code } = await focus.kill('SIGTERM');
      note(`ended after ${Date.now() - start} ms`);
      expect(code === 0, `exit code ${code}`);
      for (const client of [alice, bob, carol]) {
        const left = await client.event('disconnected');
        expect(left.reason === SERVER_SHUTDOWN, `${client.identity}: the reason is ${left.reason}`);
      }
    },
  },
];
