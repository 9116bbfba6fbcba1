// Every codec, from those who have it to all who do.
import { KINDS } from '../lib/clients.mjs';
import { expect } from '../lib/wait.mjs';

const publishers = ['chromium', 'node', 'rtc'];
const codecs = ['h264', 'vp9', 'av1'];

export default publishers.flatMap((publisher) => codecs.map((codec) => ({
  name: `${codec} from ${publisher} reaches every client that has it`,
  async run({ clients, room }) {
    const others = Object.keys(KINDS).filter((kind) => KINDS[kind].codecs.includes(codec));
    const viewers = [];
    for (const kind of others) viewers.push(await clients.join(kind, `viewer-${kind}`, room));
    const alice = await clients.join(publisher, 'alice', room);
    await alice.do('publish', { source: 'camera', codec });
    await Promise.all(viewers.map((viewer) => viewer.plays('alice', 'video')));
    const [track] = (await viewers[0].do('remote')).filter((track) => track.from === 'alice');
    expect(track.codec?.toLowerCase() === `video/${codec}`, `published as ${track.codec}`);
  },
}))).concat([{
  name: 'a codec the subscriber cannot take is refused by name',
  async run({ clients, room }) {
    const firefox = await clients.join('firefox', 'fox', room);
    const alice = await clients.join('chromium', 'alice', room);
    const { sid } = await alice.do('publish', { source: 'camera', codec: 'h264' });
    const failure = await firefox.event('subscriptionFailed', (event) => event.sid === sid);
    expect(failure.error !== undefined, 'the reason is given');
    await alice.do('publish', { source: 'microphone' });
    await firefox.plays('alice', 'audio');
  },
}]);
