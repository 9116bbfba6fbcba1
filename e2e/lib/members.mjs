// Who is in a call by the word of a homeserver, and whose leave from it is in a focus's hands.
import { settle } from '../../interop/lib/wait.mjs';

export async function membersAre(user, room, expected, deadline) {
  const ids = expected.map(({ id }) => id).sort();
  await settle(`${user.name}'s homeserver has in the call: ${ids.join(', ') || 'nobody'}`, async () => {
    const members = await user.callMembers(room);
    if (members.join() === ids.join()) return true;
    throw new Error(members.join(', '));
  }, deadline);
}

// How many leaves at a focus have come so far.
export async function leaves(focus, stage) {
  const text = await (await fetch(`${focus.admin}/metrics`)).text();
  const sample = text.split('\n').find((line) => line.startsWith(`weir_delegated_leaves{stage="${stage}"}`));
  return Number(sample?.split(' ').at(-1) ?? 0);
}
