// Networks that let only some of it through.
import { dropping } from '../lib/firewall.mjs';
import { expect } from '../lib/wait.mjs';

async function call(clients, room, kinds, path) {
  const [alice, bob] = [await clients.join(kinds[0], 'alice', room), await clients.join(kinds[1], 'bob', room)];
  for (const client of [alice, bob]) {
    await client.do('publish', { source: 'camera' });
    await client.do('publish', { source: 'microphone' });
  }
  await Promise.all([alice.plays('bob', 'video'), alice.plays('bob', 'audio'), bob.plays('alice', 'video'), bob.plays('alice', 'audio')]);
  const taken = await alice.do('path');
  expect(Object.entries(path).every(([key, value]) => taken[key] === value), `the path is ${JSON.stringify(taken)}`);
}

export default [
  {
    name: 'without UDP the media goes over TCP',
    async run({ clients, room }) {
      await dropping('-p udp --dport 7882', () => call(clients, room, ['chromium', 'python'], { protocol: 'tcp' }));
    },
  },
  {
    name: 'without IPv4 the media goes over IPv6',
    async run({ clients, room }) {
      const media = '-p udp --dport 7882';
      await dropping(media, () => call(clients, room, ['chromium', 'chromium-dual'], { protocol: 'udp', family: 'IPv6' }), ['iptables']);
    },
  },
];
