// What nobody watches is not sent, by the publishing browser's own statistics.
import { expect, settle, sleep } from '../lib/wait.mjs';

const [LOW, HIGH] = [0, 2];
const ALL = ['q', 'h', 'f'];
// The focus promises 2 and 1 seconds, which are noted; a loaded machine may take its time. In milliseconds.
const OFF_WITHIN = 6000;
const BACK_WITHIN = 5000;
// So long without a picture is off.
const STILL = 1500;
// A layer wanted again sooner counts as one that should have stayed, and goes more slowly the next time.
const MEANT = 10000;

// Of a layer that the browser has not begun, it says nothing.
const NOT_BEGUN = { framesSent: 0, bytes: 0, active: false };

// The publisher's statistics by RID.
async function layers(client) {
  const found = await client.do('sent');
  return new Map(ALL.map((rid) => [rid, found.find((layer) => layer.rid === rid) ?? NOT_BEGUN]));
}

const sent = (layer) => `${layer.framesSent} pictures, ${layer.bytes} bytes`;

// What `turn` turns off is off: how long after it each of these layers last sent something.
async function off(client, rids, turn) {
  const start = Date.now();
  let before = await layers(client);
  const last = new Map(rids.map((rid) => [rid, 0]));
  const still = settle(`${rids} stand still`, async () => {
    const now = await layers(client);
    const at = Date.now() - start;
    for (const rid of rids) {
      if (sent(now.get(rid)) !== sent(before.get(rid))) last.set(rid, at);
    }
    before = now;
    return rids.every((rid) => at >= last.get(rid) + STILL && now.get(rid).active === false);
  }, OFF_WITHIN + STILL);
  await Promise.all([turn, still]);
  const ended = await layers(client);
  await sleep(MEANT);
  const later = await layers(client);
  for (const rid of rids) expect(sent(later.get(rid)) === sent(ended.get(rid)), `${rid} sent ${sent(later.get(rid))} after ${sent(ended.get(rid))}`);
  return `off in ${rids.map((rid) => `${rid} ${last.get(rid)}`).join(', ')} ms`;
}

// What `turn` turns on is back: how long after it each of these layers sent a picture.
async function back(client, rids, turn) {
  const start = Date.now();
  const before = await layers(client);
  const first = new Map();
  const flows = settle(`${rids} send again`, async () => {
    const now = await layers(client);
    for (const rid of rids) {
      if (now.get(rid).framesSent > before.get(rid).framesSent && !first.has(rid)) first.set(rid, Date.now() - start);
    }
    return first.size === rids.length;
  }, BACK_WITHIN);
  await Promise.all([turn, flows]);
  return `back in ${rids.map((rid) => `${rid} ${first.get(rid)}`).join(', ')} ms`;
}

export default [
  {
    name: 'layers of Chromium that nobody watches are off, and back for whoever watches',
    async run({ clients, room, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      const { sid } = await alice.do('publish', { source: 'camera' });
      await settle('720p arrives', async () => (await bob.track('alice', 'video')).width === 1280, 60000);

      note(`only the smallest is watched: ${await off(alice, ['h', 'f'], bob.do('quality', { sid, quality: LOW, width: 320 }))}`);
      await bob.plays('alice', 'video');
      const shown = bob.do('quality', { sid, quality: HIGH, width: 1280 });
      note(`the largest is watched: ${await back(alice, ['h', 'f'], shown)}, shown in ${Math.round((await shown).ms)} ms`);

      note(`nobody looks: ${await off(alice, ALL, bob.do('enable', { sid, enabled: false }))}`);
      note(`somebody looks: ${await back(alice, ALL, bob.do('enable', { sid, enabled: true }))}`);
      await bob.plays('alice', 'video');

      note(`nobody subscribes: ${await off(alice, ALL, bob.do('subscribe', { sid, subscribed: false }))}`);
      note(`somebody subscribes: ${await back(alice, ALL, bob.do('subscribe', { sid, subscribed: true }))}`);
      await bob.plays('alice', 'video');
    },
  },
  {
    name: 'layers of a lone publisher are off until somebody comes',
    async run({ clients, room, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      await alice.do('publish', { source: 'camera' });
      await settle('it is sent', async () => (await layers(alice)).get('q').framesSent > 0);
      note(await off(alice, ALL));
      const bob = await clients.join('chromium', 'bob', room);
      await bob.plays('alice', 'video');
    },
  },
];
