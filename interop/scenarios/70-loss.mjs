// Bad lines.
import { dropping } from '../lib/firewall.mjs';
import { expect, sleep } from '../lib/wait.mjs';

const LOSS = '-i lo -p udp -m statistic --mode random --probability 0.03';

export default [
  {
    name: '3 % random loss both ways: residual loss under 0.1 %, retransmissions under twice the loss',
    async run({ clients, room, focus, note }) {
      const alice = await clients.join('chromium', 'alice', room);
      const bob = await clients.join('chromium', 'bob', room);
      await alice.do('publish', { source: 'camera' });
      await bob.plays('alice', 'video', { frames: 60 });
      const counters = ['weir_rtp_in_total', 'weir_rtp_out_total', 'weir_recovered_total', 'weir_lost_total', 'weir_nacks_out_total', 'weir_retransmitted_total'];
      const read = async () => Object.fromEntries(await Promise.all(counters.map(async (name) => [name, await focus.metric(name)])));
      const [counted, tracked] = [await read(), await bob.track('alice', 'video')];
      await dropping(LOSS, () => sleep(30000));
      await sleep(2000);
      const after = await read();
      const now = await bob.track('alice', 'video');
      const grown = Object.fromEntries(counters.map((name) => [name, after[name] - counted[name]]));
      const upLost = grown.weir_recovered_total + grown.weir_lost_total;
      const upResidual = grown.weir_lost_total / grown.weir_rtp_in_total;
      const received = now.packets - tracked.packets;
      // Chromium counts as lost what did not come in its own place; what came by retransmission, apart.
      const [lost, repaired] = [now.lost - tracked.lost, now.repaired - tracked.repaired];
      const downResidual = Math.max(0, lost - repaired) / received;
      const downLost = 0.03 * grown.weir_rtp_out_total;
      note(`up: ${upLost} lost of ${grown.weir_rtp_in_total}, ${grown.weir_nacks_out_total} asked for, residual ${(100 * upResidual).toFixed(3)} %`);
      note(`down: about ${Math.round(downLost)} lost of ${grown.weir_rtp_out_total}, ${grown.weir_retransmitted_total} sent again, ${lost} missed and ${repaired} repaired by the receiver, ${now.freezes - tracked.freezes} freezes, residual ${(100 * downResidual).toFixed(3)} %`);
      expect(upLost > 20 && grown.weir_retransmitted_total > 20, 'there was loss');
      expect(upResidual < 0.001, `up: residual loss ${upResidual}`);
      expect(downResidual < 0.001, `down: residual loss ${downResidual}`);
      expect(grown.weir_retransmitted_total < 2 * downLost, 'down: retransmissions under twice the loss');
      expect(grown.weir_nacks_out_total < 2 * upLost, 'up: requests under twice the loss');
      await bob.plays('alice', 'video');
    },
  },
  {
    name: '3 % random loss both ways between peers that name their retransmissions by SSRC: sound and picture go on, little is lost',
    async run({ clients, room, note }) {
      const alice = await clients.join('rtc', 'alice', room);
      const bob = await clients.join('rtc', 'bob', room);
      await alice.do('publish', { source: 'camera', simulcast: false });
      await bob.plays('alice', 'video', { frames: 15 });
      const before = await bob.track('alice', 'video');
      await dropping(LOSS, () => sleep(15000));
      await sleep(1000);
      const after = await bob.track('alice', 'video');
      const [packets, lost, undecodable] = ['packets', 'lost', 'undecodable'].map((name) => after[name] - before[name]);
      note(`${packets} packets with ${after.duplicates - before.duplicates} duplicates, ${lost} lost for good, ${undecodable} pictures spoilt`);
      expect(packets > 500, 'there was media');
      expect(lost < packets * 0.01, `${lost} packets of ${packets} were never repaired`);
      await bob.plays('alice', 'video');
    },
  },
];
