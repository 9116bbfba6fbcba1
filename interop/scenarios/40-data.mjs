// Data packets, streams, calls, and what participants tell of themselves.
import { expect, settle, sleep } from '../lib/wait.mjs';

const ALL = ['chromium', 'chromium-dual', 'firefox', 'node', 'python', 'rtc'];

export default [
  {
    name: 'data reaches everybody, or its destinations only',
    async run({ clients, room }) {
      const everybody = [];
      for (const kind of ALL) everybody.push(await clients.join(kind, kind, room));
      for (const client of everybody) await client.do('send', { text: `to all from ${client.identity}`, topic: 'all' });
      for (const client of everybody) await client.do('send', { text: `secret of ${client.identity}`, topic: 'secret', to: ['node', 'firefox'] });
      const of = async (client, topic) => (await client.do('received')).filter((message) => message.topic === topic);
      for (const client of everybody) {
        await settle(`${client.identity} gets what all get`, async () => (await of(client, 'all')).length === ALL.length - 1);
        const meant = ['node', 'firefox'].includes(client.identity);
        if (meant) await settle(`${client.identity} gets the secrets`, async () => (await of(client, 'secret')).length === ALL.length - 1);
      }
      await sleep(500);
      for (const client of everybody) {
        const secrets = await of(client, 'secret');
        const meant = ['node', 'firefox'].includes(client.identity);
        expect(meant || secrets.length === 0, `${client.identity} got ${secrets.length} secrets of others`);
        expect(secrets.every((message) => message.text === `secret of ${message.from}`), 'senders are named rightly');
      }
    },
  },
  {
    name: 'lossy data arrives',
    async run({ clients, room }) {
      const all = [];
      for (const kind of ['chromium', 'node', 'rtc']) all.push(await clients.join(kind, kind, room));
      await settle('a lossy packet of each arrives at each other', async () => {
        for (const client of all) await client.do('send', { text: 'hello', topic: 'lossy', reliable: false });
        const received = await Promise.all(all.map((client) => client.do('received')));
        const senders = received.map((messages) => new Set(messages.filter(({ topic }) => topic === 'lossy').map(({ from }) => from)));
        return senders.every(({ size }) => size === all.length - 1);
      });
    },
  },
  {
    name: 'two megabytes of text arrive whole and in order',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const viewers = [await clients.join('chromium', 'bob', room), await clients.join('firefox', 'carol', room)];
      await alice.do('sendText', { bytes: 2 * 1024 * 1024 });
      for (const viewer of viewers) {
        const text = await settle('the text arrives', async () => (await viewer.do('received')).find((message) => message.topic === 'text'), 60000);
        expect(text.bytes === 2 * 1024 * 1024 && text.intact, `${viewer.identity}: ${text.bytes} bytes, intact: ${text.intact}`);
      }
    },
  },
  {
    name: 'remote calls are answered',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      await clients.join('firefox', 'bob', room);
      const { response } = await alice.do('rpc', { to: 'bob', payload: 'ping' });
      expect(response === 'alice:ping', `answered ${response}`);
    },
  },
  {
    name: 'name, metadata and attributes are told at once',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium-dual', 'bob', room);
      const carol = await clients.join('python', 'carol', room);
      const dave = await clients.join('rtc', 'dave', room);
      await alice.do('update', { name: 'Alice A.', metadata: 'some metadata', attributes: { hand: 'raised' } });
      for (const viewer of [bob, carol, dave]) {
        const seen = await settle('the change is seen', async () =>
          (await viewer.do('participants')).find((p) => p.identity === 'alice' && p.name === 'Alice A.' && p.metadata === 'some metadata'));
        expect(viewer.kind === 'python' || seen.attributes.hand === 'raised', JSON.stringify(seen));
      }
    },
  },
  // A steady tone: Chromium's fake microphone beeps too briefly to count as speech.
  ...['python', 'rtc'].map((speaker) => ({
    name: `speakers are named (${speaker})`,
    async run({ clients, room }) {
      const alice = await clients.join(speaker, 'alice', room);
      const viewers = [];
      for (const kind of ['chromium', 'chromium-dual', 'rtc']) viewers.push(await clients.join(kind, `viewer-${kind}`, room));
      const { sid } = await alice.do('publish', { source: 'microphone' });
      for (const viewer of viewers) await viewer.event('speakers', (event) => event.who.includes('alice'));
      await alice.do('mute', { sid, muted: true });
      for (const viewer of viewers) {
        await viewer.event('speakers', (event) => event.who.length === 0);
      }
    },
  })),
  {
    name: 'connection quality is told and good',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium-dual', 'bob', room);
      await alice.do('publish', { source: 'camera' });
      await bob.event('quality', (event) => event.from === 'alice' && event.quality === 'excellent');
      await alice.event('quality', (event) => event.from === 'alice');
    },
  },
];
