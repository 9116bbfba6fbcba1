// Lines that do not carry all that is wished.
import { dropping } from '../lib/firewall.mjs';
import { thinned } from '../lib/line.mjs';
import { expect, settle, sleep } from '../lib/wait.mjs';

const MEDIA_PORT = 7882;

// The only line that has a picture.
async function line(focus) {
  return (await focus.lines()).find((line) => line.pictures.length > 0);
}

// Over two seconds: what a probe showed is believed in part until the next, and a shaper lets some of one pass.
async function median(figure) {
  const figures = [];
  for (let at = 0; at < 9; at += 1) {
    figures.push(await figure());
    await sleep(250);
  }
  return figures.sort((one, other) => one - other)[4];
}

function watcher(kind) {
  return {
    name: `a line that becomes thin brings ${kind} a smaller picture, and the large one when it is wide again`,
    async run({ clients, room, focus, note }) {
      await dropping(`-p udp --dport ${MEDIA_PORT}`, async () => {
        const alice = await clients.join('chromium', 'alice', room);
        await alice.do('publish', { source: 'camera' });
        await alice.do('publish', { source: 'microphone' });
        const bob = await clients.join(kind, 'bob', room);
        await bob.plays('alice', 'audio');
        await bob.plays('alice', 'video', { frames: 30 });
        const wide = await settle('all that is wished is sent', async () => {
          const now = await line(focus);
          return now?.pictures[0].reason === 'wish' && now.pictures[0].encoding === 2 && now;
        });
        await sleep(5000); // Chromium's encoders reach what they aim for
        const large = (await bob.track('alice', 'video')).height;
        const carried = (await line(focus)).acknowledged_bps;
        const thin = Math.round(carried * 0.5 / 1000);
        const { port } = await alice.do('path');
        await thinned(thin, MEDIA_PORT, port, async () => {
          const start = Date.now();
          const small = await settle('a smaller picture is sent', async () => {
            const [now, track] = [await line(focus), await bob.track('alice', 'video')];
            return now.pictures[0].encoding < 2 && track.height < large && { now, track, after: Date.now() - start };
          });
          note(`${carried / 1000 | 0} kbit/s became ${thin}: ${large} lines became ${small.track.height} after ${small.after} ms, estimate ${small.now.available_bps / 1000 | 0}`);
          await sleep(3000); // what the fall left in the queue is through
          const before = await bob.track('alice', 'video');
          await bob.plays('alice', 'video', { frames: 60 });
          await bob.plays('alice', 'audio');
          const after = await bob.track('alice', 'video');
          if (kind === 'chromium') note(`meanwhile ${after.lost - before.lost} lost, ${after.freezes - before.freezes} freezes`);
          const now = await line(focus);
          expect(now.pictures[0].reason !== 'wish', `the reason is ${now.pictures[0].reason}`);
          const estimate = await median(async () => (await line(focus)).available_bps);
          expect(estimate < thin * 1300, `${estimate} is more than the line carries`);
        });
        const start = Date.now();
        await settle('the large picture is back', async () => {
          const [now, track] = [await line(focus), await bob.track('alice', 'video')];
          return now.pictures[0].reason === 'wish' && track.height === large;
        });
        note(`and ${large} again ${Date.now() - start} ms after it was wide; ${wide.because} before`);
      }, ['ip6tables']);
    },
  };
}

export default ['chromium', 'python'].map(watcher);
