// How much of somebody's way into a call the foci themselves take, by what they log.
import fs from 'node:fs';

// Where a focus's log ends now.
export const mark = (focus) => fs.statSync(focus.log).size;

function lines(focus, from) {
  return fs.readFileSync(focus.log).subarray(from).toString().split('\n');
}

const field = (line, name) => line.match(new RegExp(`\\b${name}=(\\S+)`))?.[1];

// The milliseconds of all that was said in these words.
function took(said, words, name = 'took_ms') {
  return said.filter((line) => line.includes(words)).map((line) => Number(field(line, name)));
}

// In milliseconds: of one person who came in while nobody else did, since the marks, which are pairs of a focus and a mark.
// `undefined` until the first picture is on its way. Where two foci take part, what each of them took is added up, though the
// client asks both at a time.
export function share(marks) {
  const sum = (times) => times.reduce((total, time) => total + time, 0);
  const said = marks.map(([focus, from]) => lines(focus, from));
  const joined = said.flat().filter((line) => line.includes(' joined ')).map((line) => field(line, 'participant'));
  const first = said.flat().filter((line) => line.includes('first packet to a subscriber') && field(line, 'kind') === 'Video')
    .filter((line) => joined.includes(field(line, 'participant')));
  if (first.length === 0) return undefined;
  const lookUp = sum(said.flatMap((one) => took(one, 'a homeserver said whose a token is')));
  const parts = {
    // Without the wait for homeservers to say whose a token is. Where one is asked for a room's members, that counts.
    token: sum(said.flatMap((one) => took(one, 'a request was answered'))) - lookUp,
    join: sum(said.flatMap((one) => took(one, 'a join was answered'))),
    firstPacket: Math.max(...first.map((line) => Number(field(line, 'after_ms')))),
  };
  return { ...parts, lookUp, all: parts.token + parts.join + parts.firstPacket };
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
