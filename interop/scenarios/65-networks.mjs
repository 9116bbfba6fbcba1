// Networks that let only some of it through.
import { execFileSync } from 'node:child_process';
import { expect } from '../lib/wait.mjs';

// Drops what the focus would receive, as a firewall does: without a word.
async function blocking(program, rules, run) {
  const apply = (action) => rules.map((rule) => execFileSync(program, [action, 'INPUT', ...rule.split(' '), '-j', 'DROP']));
  apply('-A');
  try {
    await run();
  } finally {
    apply('-D');
  }
}

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
      await blocking('iptables', ['-p udp --dport 7882'], () => blocking('ip6tables', ['-p udp --dport 7882'], () =>
        call(clients, room, ['chromium', 'python'], { protocol: 'tcp' })));
    },
  },
  {
    name: 'without IPv4 the media goes over IPv6',
    async run({ clients, room }) {
      await blocking('iptables', ['-p udp --dport 7882', '-p tcp --dport 7881'], () =>
        call(clients, room, ['chromium', 'chromium-dual'], { protocol: 'udp', family: 'IPv6' }));
    },
  },
];
