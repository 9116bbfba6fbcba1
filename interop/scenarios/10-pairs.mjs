// Every pair of client kinds sees and hears each other.
import { KINDS } from '../lib/clients.mjs';

const kinds = Object.keys(KINDS);
const pairs = kinds.flatMap((first, at) => kinds.slice(at).map((second) => [first, second]));

export default pairs.map(([first, second]) => ({
  name: `${first} and ${second} see and hear each other`,
  async run({ clients, room }) {
    const [a, b] = [await clients.join(first, 'alice', room), await clients.join(second, 'bob', room)];
    for (const client of [a, b]) {
      await client.do('publish', { source: 'microphone' });
      await client.do('publish', { source: 'camera', codec: 'vp8' });
    }
    await Promise.all([a.plays('bob', 'video'), a.plays('bob', 'audio'), b.plays('alice', 'video'), b.plays('alice', 'audio')]);
  },
}));
