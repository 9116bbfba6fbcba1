// What people do with their tracks.
import { expect, settle, sleep } from '../lib/wait.mjs';

export default [
  {
    name: 'end-to-end encrypted media decodes with the key, in both modes of the client',
    async run({ clients, room }) {
      const passphrase = 'correct horse battery staple';
      const alice = await clients.join('chromium', 'alice', room, { passphrase });
      const bob = await clients.join('chromium-dual', 'bob', room, { passphrase });
      for (const client of [alice, bob]) {
        await client.do('publish', { source: 'camera' });
        await client.do('publish', { source: 'microphone' });
      }
      await Promise.all([['alice', bob], ['bob', alice]].flatMap(([from, viewer]) =>
        [viewer.plays(from, 'video', { frames: 30 }), viewer.plays(from, 'audio')]));
      for (const client of [alice, bob]) {
        const errors = (await client.do('events')).filter((event) => event.name === 'encryptionError');
        expect(errors.length === 0, `${client.identity}: ${JSON.stringify(errors)}`);
      }
    },
  },
  {
    name: 'screen share beside camera',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      await alice.do('publish', { source: 'camera' });
      await alice.do('publish', { source: 'screen' });
      await Promise.all([
        bob.plays('alice', 'video', { source: 'camera' }), bob.plays('alice', 'video', { source: 'screen_share' }),
      ]);
    },
  },
  {
    name: 'who waits for a subscriber before it sends anything hears of one',
    async run({ clients, room }) {
      const alice = await clients.join('python', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      await alice.do('publish', { source: 'microphone', waits: true });
      await bob.plays('alice', 'audio');
    },
  },
  ...['chromium', 'rtc'].map((publisher) => ({
    name: `mute and unmute by ${publisher} are told, and media follows`,
    async run({ clients, room }) {
      const alice = await clients.join(publisher, 'alice', room);
      const viewers = [];
      for (const kind of ['chromium-dual', 'python', 'rtc']) viewers.push(await clients.join(kind, `viewer-${kind}`, room));
      const { sid } = await alice.do('publish', { source: 'camera' });
      await Promise.all(viewers.map((viewer) => viewer.plays('alice', 'video')));
      await alice.do('mute', { sid, muted: true });
      await Promise.all(viewers.map((viewer) => viewer.event('trackMuted')));
      await sleep(1000);
      const frames = () => Promise.all(viewers.map(async (viewer) => (await viewer.track('alice', 'video')).frames));
      const before = await frames();
      await sleep(1000);
      for (const [at, after] of (await frames()).entries()) {
        expect(after - before[at] <= 1, `${viewers[at].kind}: ${after - before[at]} frames of a muted track`);
      }
      await alice.do('mute', { sid, muted: false });
      await Promise.all(viewers.map((viewer) => viewer.event('trackUnmuted')));
      await Promise.all(viewers.map((viewer) => viewer.plays('alice', 'video')));
    },
  })),
  ...['chromium', 'rtc'].map((publisher) => ({
    name: `unpublish by ${publisher} is told, and the m-line serves the next track`,
    async run({ clients, room }) {
      const alice = await clients.join(publisher, 'alice', room);
      const viewers = [];
      for (const kind of ['chromium', 'chromium-dual', 'node', 'rtc']) viewers.push(await clients.join(kind, `viewer-${kind}`, room));
      for (let round = 0; round < 3; round += 1) {
        const { sid } = await alice.do('publish', { source: 'camera' });
        await Promise.all(viewers.map((viewer) => viewer.plays('alice', 'video')));
        await alice.do('unpublish', { sid });
        await Promise.all(viewers.map((viewer) => viewer.event('trackUnpublished', (event) => event.sid === sid)));
      }
    },
  })),
  {
    name: 'of simulcast whose encodings never change, each size asked for arrives',
    async run({ clients, room, note }) {
      const alice = await clients.join('rtc', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      const { sid } = await alice.do('publish', { source: 'camera' });
      await settle('720p arrives', async () => (await bob.track('alice', 'video')).width === 1280);
      const took = [];
      for (const [quality, width] of [[0, 320], [1, 640], [2, 1280], [0, 320], [2, 1280]]) {
        took.push(`${width} in ${Math.round((await bob.do('quality', { sid, quality, width })).ms)} ms`);
        await bob.plays('alice', 'video', { frames: 5 });
      }
      note(took.join(', '));
    },
  },
  // A decoder hides most of what a seam can be; this viewer reads every packet.
  ...['chromium', 'rtc'].map((publisher) => ({
    name: `layers of ${publisher} are switched without a seam in picture ids, timestamps and sequence numbers`,
    async run({ clients, room }) {
      const alice = await clients.join(publisher, 'alice', room);
      const bob = await clients.join('rtc', 'bob', room);
      const { sid } = await alice.do('publish', { source: 'camera' });
      await settle('720p arrives', async () => (await bob.track('alice', 'video')).width === 1280, 60000);
      for (const [quality, width] of [[0, 320], [1, 640], [2, 1280], [0, 320], [2, 1280]]) {
        await bob.do('quality', { sid, quality });
        await settle(`${width} arrives`, async () => (await bob.track('alice', 'video')).width === width);
        await bob.plays('alice', 'video', { frames: 20 });
      }
      // Long enough for the picture ids of the peer to outgrow seven bits.
      await bob.plays('alice', 'video', { frames: 60 });
    },
  })),
  {
    name: 'a 720p subscriber asks for 180p and gets it, and back',
    async run({ clients, room, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      const { sid } = await alice.do('publish', { source: 'camera' });
      // A publisher starts small and grows as its estimate does.
      await settle('720p arrives', async () => (await bob.track('alice', 'video')).width === 1280, 60000);
      const [LOW, HIGH] = [0, 2];
      const down = [];
      const up = [];
      for (let round = 0; round < 3; round += 1) {
        down.push((await bob.do('quality', { sid, quality: LOW, width: 320 })).ms);
        await sleep(300);
        up.push((await bob.do('quality', { sid, quality: HIGH, width: 1280 })).ms);
        await sleep(300);
      }
      note(`to 180p in ${down.map(Math.round)} ms, to 720p in ${up.map(Math.round)} ms`);
    },
  },
  {
    name: 'adaptive stream begins small and follows the size shown',
    async run({ clients, room }) {
      const alice = await clients.join('chromium', 'alice', room);
      await alice.do('publish', { source: 'camera' });
      const bob = await clients.join('chromium', 'bob', room, { options: { adaptiveStream: true } });
      await bob.plays('alice', 'video');
      await settle('a tile of 320 pixels gets a small picture', async () => (await bob.track('alice', 'video')).width <= 640, 5000);
    },
  },
  {
    name: 'a late joiner gets a picture at once',
    async run({ clients, room, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      await alice.do('publish', { source: 'camera' });
      const bob = await clients.join('chromium', 'bob', room);
      await bob.plays('alice', 'video', { frames: 60 });
      const start = Date.now();
      const carol = await clients.join('python', 'carol', room);
      await settle('a picture', async () => (await carol.do('remote')).some((track) => track.kind === 'video' && track.frames > 0));
      note(`connected in ${Math.round(carol.joined.ms)} ms, first picture within ${Date.now() - start} ms of starting the process`);
    },
  },
];
