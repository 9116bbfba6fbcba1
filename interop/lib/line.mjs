// A thin line from the focus to everybody but one, while something runs. Over IPv4 and UDP only.
import { execFileSync } from 'node:child_process';

const tc = (line) => execFileSync('tc', line.split(' '));
const QUEUE_MS = 300;

// `media` is the focus's UDP port, `spared` the port of the client that keeps a good line.
export async function thinned(kbps, media, spared, run) {
  tc('qdisc add dev lo root handle 1: htb default 1');
  try {
    tc('class add dev lo parent 1: classid 1:1 htb rate 10gbit quantum 65536');
    tc(`class add dev lo parent 1: classid 1:2 htb rate ${kbps}kbit burst 1600 cburst 1600`);
    tc(`qdisc add dev lo parent 1:2 bfifo limit ${Math.ceil(kbps * QUEUE_MS / 8)}`);
    const from = `filter add dev lo parent 1: protocol ip`;
    tc(`${from} prio 1 u32 match ip sport ${media} 0xffff match ip dport ${spared} 0xffff flowid 1:1`);
    tc(`${from} prio 2 u32 match ip protocol 17 0xff match ip sport ${media} 0xffff flowid 1:2`);
    await run();
  } finally {
    tc('qdisc del dev lo root');
  }
}
