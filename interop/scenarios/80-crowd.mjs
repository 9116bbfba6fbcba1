// Many at once.
import fs from 'node:fs';
import { expect, settle, sleep } from '../lib/wait.mjs';

const PEOPLE = 30;
const SECONDS = 60;
// As many as speak at once where people let each other finish; the others' sound is that of silence.
const SPEAKERS = 4;
const LOW = 0;
// Of packets: what a loaded machine loses between two processes without saying where.
const NOISE = 1e-5;

// Datagrams that found a socket full because its program was kept from running.
function overflown() {
  const [names, values] = fs.readFileSync('/proc/net/snmp', 'utf8').split('\n').filter((line) => line.startsWith('Udp:')).map((line) => line.split(' '));
  return Number(values[names.indexOf('RcvbufErrors')]);
}

export default [
  {
    name: `${PEOPLE} people who all publish and all see each other hold for ${SECONDS} seconds without unexplained loss`,
    deadline: 300000,
    async run({ clients, room, focus, note }) {
      const everybody = [];
      for (let at = 0; at < PEOPLE; at += 1) {
        everybody.push(await clients.join('rtc', `person-${at}`, room, { options: { autoSubscribe: false, isDeaf: true } }));
      }
      await Promise.all(everybody.map(async (person, at) => {
        await person.do('publish', { source: 'camera' });
        await person.do('publish', { source: 'microphone', isQuiet: at >= SPEAKERS });
      }));
      // Everybody shows everybody else small, as a grid does.
      await Promise.all(everybody.map(async (person) => {
        const tracks = await settle(`${person.identity} knows of all tracks`, async () => {
          const known = await person.do('remote');
          return known.length === 2 * (PEOPLE - 1) ? known : null;
        });
        for (const { sid, kind } of tracks) {
          if (kind === 'video') await person.do('quality', { sid, quality: LOW });
          await person.do('subscribe', { sid, subscribed: true });
        }
      }));
      const all = async () => (await Promise.all(everybody.map((person) => person.do('remote')))).flat();
      await settle('everything flows', async () => (await all()).every((track) => track.frames > 0), 120000);
      const counters = ['weir_rtp_out_total', 'weir_retransmitted_total', 'weir_lost_total', 'weir_recovered_total', 'weir_dropped_total'];
      const read = async () => Object.fromEntries(await Promise.all(counters.map(async (name) => [name, await focus.metric(name)])));
      const counted = await read();
      const full = overflown();
      const before = new Map((await all()).map((track, at) => [`${at} ${track.sid}`, track]));
      await sleep(SECONDS * 1000);
      const after = await all();
      const now = await read();
      const explained = overflown() - full;
      const grown = Object.fromEntries(counters.map((name) => [name, now[name] - counted[name]]));
      const sum = (of) => after.reduce((total, track, at) => total + of(track) - of(before.get(`${at} ${track.sid}`)), 0);
      const [packets, lost] = [sum((track) => track.packets), sum((track) => track.lost)];
      const slowest = Math.min(...after.map((track, at) => track.frames - before.get(`${at} ${track.sid}`).frames));
      note(`${after.length} tracks, ${packets} packets, ${lost} lost for good, ${explained} at full sockets, ${grown.weir_retransmitted_total} sent again, ${slowest} frames on the slowest track`);
      const gaps = after.map((track, at) => [track, track.lost - before.get(`${at} ${track.sid}`).lost]).filter(([, gap]) => gap > 0);
      for (const [track, gap] of gaps.slice(0, 5)) note(`${gap} lost of ${track.from}'s ${track.kind}, duplicates ${track.duplicates}`);
      note(`focus: ${grown.weir_rtp_out_total} out, ${grown.weir_recovered_total} recovered and ${grown.weir_lost_total} lost from publishers, ${grown.weir_dropped_total} dropped (from the start: ${await focus.parts('weir_dropped_total') || 'none'})`);
      expect(after.length === 2 * PEOPLE * (PEOPLE - 1), `${after.length} tracks`);
      expect(grown.weir_lost_total === 0 && grown.weir_dropped_total === 0, 'the focus lost something');
      expect(lost <= explained + packets * NOISE && lost < packets / 1000, 'loss that nothing explains');
      expect(slowest > SECONDS, 'nothing stands still');
      // Of this minute: while all join at once, first packets find sockets full, and nobody can know of them.
      const faults = after.flatMap((track, at) => track.faults.slice(before.get(`${at} ${track.sid}`).faults.length));
      expect(faults.length === 0, faults.slice(0, 5).join('; '));
    },
  },
];
